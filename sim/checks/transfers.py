"""What is on its way: requests to engines, KV caches between replicas."""

from __future__ import annotations

from sim.checks.book import Book
from sim.checks.check import Check
from sim.events import IterationsEnded, IterationStarted, Queued, Rejected, RunEnded
from sim.transfer_events import (
    PartSent,
    StreamStarted,
    StreamWithdrawn,
    TransferEnded,
    TransferStarted,
)


class TransferConservation(Check):
    """The front end between client and engine, and the links between replicas."""

    name = "transfer-conservation"
    law = "Requests and KV caches arrive when their way ends, whole, one per link."

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._free_ns: dict[int, int] = {}
        self._moving: dict[int, TransferStarted] = {}
        self._parts: dict[int, PartSent] = {}  # the last sent of each stream
        self._sent: dict[int, int] = {}  # layer-tokens of each stream
        self._computed: dict[int, int] = {}  # layer-tokens by the last iteration's end
        self._coming: dict[int, int] = {}  # and those of the one under way

    def transfer_started(self, event: TransferStarted) -> None:
        """All of a prompt, over links that are free, for as long as it takes."""
        links, replicas = self.book.setup.links, (event.source, event.replica)
        free_ns = max(self._free_ns.get(replica, 0) for replica in replicas)
        took_ns = event.end_ns - event.begin_ns
        owed = self.book.entries[event.request_id].request.prompt_tokens
        due_ns = -1 if links is None else links.transfer_ns(*replicas, event.tokens)
        begins = event.begin_ns == max(event.time_ns, free_ns)
        if not begins or took_ns != due_ns or event.tokens != owed:
            raise self.broken(
                f"{event.tokens} of {owed} tokens sent from {event.begin_ns} ns for"
                f" {took_ns} ns of {due_ns}; links are free from {free_ns} ns",
                event.time_ns,
                request=event.request_id,
                replica=event.replica,
            )
        self._free_ns.update(dict.fromkeys(replicas, event.end_ns))
        self._moving[event.request_id] = event

    def started(self, event: IterationStarted) -> None:
        """Note what the prompts' caches will be at its end, if they move early."""
        if not self._hands_over_early(event.replica):
            return
        layers = self.book.setup.replicas[event.replica].limits.num_layers
        for span in event.plan.spans:
            for chunk in span.prefill:
                found = self.book.entries[chunk.request_id].cached * layers
                self._computed.setdefault(chunk.request_id, found)
                coming = self._coming.get(chunk.request_id, 0)
                self._coming[chunk.request_id] = coming + span.layers * chunk.tokens

    def ended(self, event: IterationsEnded) -> None:
        """What was being computed is there."""
        if not self._hands_over_early(event.replica):
            return
        entries = self.book.entries
        here = [r for r in self._coming if entries[r].replica == event.replica]
        for request_id in here:
            self._computed[request_id] += self._coming.pop(request_id)

    def _hands_over_early(self, replica: int) -> bool:
        setup = self.book.setup
        return setup.streams and setup.replicas[replica].hands_over

    def stream_started(self, event: StreamStarted) -> None:
        """The whole prompt is to come."""
        owed = self.book.entries[event.request_id].request.prompt_tokens
        self._sent[event.request_id] = 0
        if event.tokens != owed:
            raise self._of(event, f"{event.tokens} of {owed} tokens are to come")

    def part_sent(self, event: PartSent) -> None:
        """What has been computed, once, over links that are free."""
        request_id, links = event.request_id, self.book.setup.links
        replicas = (event.source, event.replica)
        layers = self.book.setup.replicas[event.replica].limits.num_layers
        free_ns = max(self._free_ns.get(replica, 0) for replica in replicas)
        due_ns = -1
        if links is not None:
            due_ns = links.transfer_ns(*replicas, event.layer_tokens / layers)
        took_ns = event.end_ns - event.begin_ns
        before = self._parts.get(request_id)
        alone = before is None or before.end_ns <= event.time_ns
        begins = alone and event.begin_ns == max(event.time_ns, free_ns)
        sent = self._sent[request_id] = self._sent[request_id] + event.layer_tokens
        # Of an iteration under way in spans nothing is there before its end; which
        # layers of one span are is for the oracle tests to say.
        most = self._computed[request_id] + self._coming.get(request_id, 0)
        if (
            not begins
            or took_ns != due_ns
            or not 0 < event.layer_tokens <= sent <= most
        ):
            raise self._of(
                event,
                f"{sent} of {most} layer-tokens sent by {event.begin_ns} ns for"
                f" {took_ns} ns of {due_ns}; links are free from {free_ns} ns",
            )
        self._free_ns.update(dict.fromkeys(replicas, event.end_ns))
        self._parts[request_id] = event

    def withdrawn(self, event: StreamWithdrawn) -> None:
        """Nothing of it is on a link."""
        last = self._parts.pop(event.request_id, None)
        self._sent.pop(event.request_id, None)
        if last is not None and last.end_ns > event.time_ns:
            raise self._of(event, f"is withdrawn before {last.end_ns} ns, on its way")

    def _all_parts(self, event: TransferEnded) -> None:
        """The last part of a stream has arrived; sent is received."""
        last = self._parts.pop(event.request_id, None)
        sent = self._sent.pop(event.request_id)
        tokens = self.book.entries[event.request_id].request.prompt_tokens
        layers = self.book.setup.replicas[event.replica].limits.num_layers
        way = (event.time_ns, event.source, event.replica)
        known = last is not None and (last.end_ns, last.source, last.replica) == way
        if not known or sent != tokens * layers:
            raise self._of(
                event,
                f"{sent} of {tokens * layers} layer-tokens arrive, sent as {last}",
            )

    def _of(
        self,
        event: StreamStarted | PartSent | StreamWithdrawn | TransferEnded,
        what: str,
    ) -> Exception:
        at = {"request": event.request_id, "replica": event.replica}
        return self.broken(what, event.time_ns, **at)

    def transfer_ended(self, event: TransferEnded) -> None:
        """It arrives where and when it was to."""
        if self.book.setup.streams:
            self._all_parts(event)
            return
        sent = self._moving.pop(event.request_id, None)
        way = (event.time_ns, event.source, event.replica)
        if sent is None or (sent.end_ns, sent.source, sent.replica) != way:
            raise self.broken(
                f"a KV cache arrives that was sent as {sent}",
                event.time_ns,
                request=event.request_id,
                replica=event.replica,
            )

    def run_ended(self, event: RunEnded) -> None:
        """Nothing is left on the way."""
        for request_id in (*self._moving, *self._sent):
            raise self.broken("is still moving", event.time_ns, request=request_id)

    def delivered(self, event: Queued | Rejected) -> None:
        """Compare with when it was sent."""
        sent_ns = self.book.entries[event.request_id].routed_ns
        if event.time_ns - sent_ns != self.book.setup.frontend_ns:
            raise self.broken(
                f"sent at {sent_ns} ns, delivered after {event.time_ns - sent_ns} ns"
                f" of {self.book.setup.frontend_ns}",
                *(event.time_ns,),
                request=event.request_id,
                replica=event.replica,
            )

    queued = rejected = delivered
