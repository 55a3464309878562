"""Requests: none lost, none doubled, no effect before its cause."""

from __future__ import annotations

from itertools import pairwise

from sim.checks.book import Book
from sim.checks.check import Check
from sim.checks.ledger import Entry, Phase
from sim.events import (
    Arrived,
    IterationsEnded,
    IterationStarted,
    Rejected,
    Retried,
    RunEnded,
    Sent,
    Stated,
    Stranded,
    stated_by,
)
from sim.request import RequestRecord


class RequestConservation(Check):
    """What an engine says it has, against who entered and who left."""

    name = "request-conservation"
    law = "Arrived = finished + running + waiting + rejected + on the way, always."

    def state(self, event: Stated) -> None:
        """Compare an engine's queues with the book."""
        replica, state = self.book.replicas[stated_by(event)], event.state
        for queue, reported, expected in (
            ("waiting", state.waiting, len(replica.waiting)),
            ("prefilling", state.prefilling, len(replica.prefilling)),
            ("decoding", state.decoding, len(replica.decoding)),
            ("parked", state.parked, len(replica.parked)),
            ("incoming", state.incoming, len(replica.incoming)),
        ):
            if reported != expected:
                raise self.broken(
                    f"{reported} {queue}, by arrivals and departures {expected}",
                    event.time_ns,
                    replica=stated_by(event),
                )

    queued = started = ended = transfer_started = transfer_ended = stalled = state
    down = stream_started = withdrawn = state

    def run_ended(self, event: RunEnded) -> None:
        """Everybody has left, and the records are of everybody."""
        for entry in self.book.entries.values():
            if entry.phase not in (Phase.FINISHED, Phase.REJECTED):
                raise self.broken(
                    f"is still {entry.phase} when the run ends",
                    event.time_ns,
                    request=entry.request.id,
                )
        sent = [request.id for request in self.book.setup.requests]
        if [record.request.id for record in event.records] != sent:
            raise self.broken("the records are not those of the workload", 0)


class ClientConcurrency(Check):
    """The closed loop: never too many, and never fewer while requests are held."""

    name = "client-concurrency"
    law = "min(max_concurrency, requests there are) are in progress in a closed loop."

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.held = self.in_progress = 0
        self._stranded: set[int] = set()

    def arrived(self, event: Arrived) -> None:
        """One more to send."""
        self._all_sent(event)
        self.held += 1

    def retried(self, event: Retried) -> None:
        """In progress all the same."""
        self._stranded.add(event.request_id)

    def stranded(self, event: Stranded) -> None:
        """In progress, on no replica."""
        self._enters(event)
        self._stranded.add(event.request_id)

    def sent(self, event: Sent) -> None:
        """One more in progress, unless it was before."""
        if event.request_id in self._stranded:
            self._stranded.remove(event.request_id)
        else:
            self._enters(event)

    def _enters(self, event: Sent | Stranded) -> None:
        self.held -= 1
        self.in_progress += 1
        slots = self.book.setup.max_concurrency
        if slots is not None and self.in_progress > slots:
            raise self.broken(
                f"{self.in_progress} in progress, max_concurrency = {slots}",
                event.time_ns,
                request=event.request_id,
            )

    def rejected(self, _event: Rejected) -> None:
        """One fewer in progress."""
        self.in_progress -= 1

    def started(self, event: IterationStarted) -> None:
        """Whoever could be sent by now has been."""
        self._all_sent(event)

    def ended(self, event: IterationsEnded) -> None:
        """Fewer in progress."""
        self.in_progress -= len(event.finished)

    run_ended = started

    def _all_sent(self, event: Arrived | IterationStarted | RunEnded) -> None:
        slots = self.book.setup.max_concurrency
        if self.held and (slots is None or self.in_progress < slots):
            raise self.broken(
                f"{self.held} held by the client with {self.in_progress} in progress,"
                f" max_concurrency = {slots}",
                event.time_ns,
            )


class Causality(Check):
    """The records, against what happened and in which order."""

    name = "causality"
    law = "Arrival <= first scheduled < first token < ... < last token = finish."

    def run_ended(self, event: RunEnded) -> None:
        """Compare every record with the book, token by token."""
        for record in event.records:
            entry = self.book.entries[record.request.id]
            for name, recorded, seen in _times(record, entry):
                if recorded != seen:
                    raise self._of(record, event, f"{name} = {recorded}, was {seen}")
            if record.rejected is None:
                self._check_order(record, entry, event)
                self._check_tokens(record, event)

    def _check_order(
        self, record: RequestRecord, entry: Entry, event: RunEnded
    ) -> None:
        first = entry.first_scheduled_ns, entry.first_token_ns, entry.finish_ns
        scheduled_ns, token_ns, finish_ns = (-1 if t is None else t for t in first)
        request_ns, sent_ns = entry.request.arrival_ns, entry.sent_ns
        if not request_ns <= sent_ns <= scheduled_ns < token_ns <= finish_ns:
            times_ns = (request_ns, sent_ns, scheduled_ns, token_ns, finish_ns)
            raise self._of(record, event, f"times out of order: {times_ns}")

    def _check_tokens(self, record: RequestRecord, event: RunEnded) -> None:
        ends_ns = event.logs[record.replica].decode_end_ns
        last_ns = record.arrival_ns
        for run in record.runs:
            times_ns = (run.first_ns, *ends_ns[run.start : run.stop])
            if times_ns[0] <= last_ns or any(a >= b for a, b in pairwise(times_ns)):
                raise self._of(record, event, "a token does not follow the one before")
            last_ns = times_ns[-1]
        if last_ns != record.finish_ns:
            raise self._of(record, event, f"finished after its last token at {last_ns}")

    def _of(self, record: RequestRecord, event: RunEnded, what: str) -> Exception:
        return self.broken(what, event.time_ns, request=record.request.id)


def _times(
    record: RequestRecord, entry: Entry
) -> tuple[tuple[str, object, object], ...]:
    """Name, recorded value and the book's of all that a record says of its times."""
    served = entry.phase is Phase.FINISHED
    return (
        ("arrival_ns", record.arrival_ns, entry.sent_ns),
        ("replica", record.replica, entry.replica if served else -1),
        ("prefill_replica", record.prefill_replica, entry.prefill_replica),
        ("first_scheduled_ns", record.first_scheduled_ns, entry.first_scheduled_ns),
        ("first_token_ns", record.first_token_ns, entry.first_token_ns),
        ("finish_ns", record.finish_ns, entry.finish_ns),
        ("preemptions", record.preemptions, entry.preemptions),
        ("retries", record.retries, entry.retries),
        ("cached_tokens", record.cached_tokens, entry.cached_first),
        ("token runs", tuple(record.runs), tuple(entry.runs)),
    )
