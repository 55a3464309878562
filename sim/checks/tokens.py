"""Tokens: every one computed once, counted once, and emitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sim.checks.book import Book
from sim.checks.check import Check
from sim.checks.ledger import Entry, Phase
from sim.events import (
    IterationsEnded,
    IterationsPassed,
    IterationStarted,
    Retried,
    RunEnded,
)
from sim.plan import LayerSpan, PrefillChunk, StepPlan


class LayersOnce(Check):
    """A literal table: tokens that each layer has seen of each prompt in progress."""

    name = "layers-once"
    law = "Each layer runs each prompt token exactly once or it was cached, in order."

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._seen: dict[int, list[int]] = {}
        self._plans: dict[int, StepPlan] = {}

    def started(self, event: IterationStarted) -> None:
        """Run the plan through the table."""
        self._plans[event.replica] = event.plan
        num_layers = self.book.replicas[event.replica].setup.limits.num_layers
        for request_id in event.plan.preempted:
            self._seen.pop(request_id, None)
        layer = 0
        for span in event.plan.spans:
            if span.first != layer or span.last <= layer:
                raise self._of(event, f"layer {layer} is left out or run twice")
            if span.decode != event.plan.spans[0].decode:
                raise self._of(event, f"decodes run on one side of layer {layer} only")
            layer = span.last
            for chunk in span.prefill:
                cached = self.book.entries[chunk.request_id].cached
                seen = self._seen.setdefault(chunk.request_id, [cached] * num_layers)
                self._run(event, span, chunk, seen)
        if layer != num_layers:
            raise self._of(event, f"{layer} of {num_layers} layers run")

    def _run(
        self,
        event: IterationStarted,
        span: LayerSpan,
        chunk: PrefillChunk,
        seen: list[int],
    ) -> None:
        before, stop = seen[span.first : span.last], chunk.start + chunk.tokens
        ready = span.first == 0 or seen[span.first - 1] == stop
        goal = self.book.entries[chunk.request_id].goal
        in_order = before == [chunk.start] * len(before)
        if chunk.tokens < 1 or stop > goal or not ready or not in_order:
            raise self._of(
                event,
                f"tokens {chunk.start} to {stop - 1} of {goal} in layers {span.first}"
                f" to {span.last - 1}, which have seen {min(before, default=0)}",
                chunk.request_id,
            )
        seen[span.first : span.last] = [stop] * len(before)

    def ended(self, event: IterationsEnded) -> None:
        """Whoever has left the prefill has been through all of it."""
        spans = self._plans[event.replica].spans
        if len(event.end_ns) > 1 and any(span.prefill for span in spans):
            raise self._of(event, "a plan that prefills ran more than once")
        for chunk in spans[-1].prefill:
            entry = self.book.entries[chunk.request_id]
            if entry.phase is not Phase.PREFILLING:
                self._complete(event, entry)

    def passed(self, event: IterationsPassed) -> None:
        """What prefills runs once."""
        if any(span.prefill for span in self._plans[event.replica].spans):
            raise self._of(event, "a plan that prefills ran more than once")

    def retried(self, event: Retried) -> None:
        """Its layers begin anew."""
        self._seen.pop(event.request_id, None)

    def _complete(self, event: IterationsEnded, entry: Entry) -> None:
        seen = self._seen.pop(entry.request.id)
        if seen != [entry.goal] * len(seen):
            raise self._of(
                event,
                f"leaves the prefill after {min(seen)} of {entry.goal} tokens",
                entry.request.id,
            )

    def _of(
        self,
        event: IterationStarted | IterationsEnded | IterationsPassed,
        what: str,
        request: int | None = None,
    ) -> Exception:
        return self.broken(what, event.time_ns, request=request, replica=event.replica)


class TokenConservation(Check):
    """What iterations scheduled, against what finished requests needed."""

    name = "token-conservation"
    law = "Scheduled = (re)computed prompts - cached + outputs but firsts + lost."

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._prefill: Counter[int] = Counter()
        self._decode: Counter[int] = Counter()
        self._lost: Counter[int] = Counter()
        self._rows: dict[int, int] = {}
        self._spans: dict[int, Sequence[LayerSpan]] = {}
        self._of_request: Counter[int] = Counter()  # in this attempt

    def started(self, event: IterationStarted) -> None:
        """Note decode rows, and who prefills."""
        spans, replica = event.plan.spans, event.replica
        rows = len(self.book.replicas[replica].decoding)
        self._rows[replica], self._spans[replica] = rows if spans[0].decode else 0, ()
        if any(span.prefill for span in spans):
            self._spans[replica] = spans

    def ended(self, event: IterationsEnded) -> None:
        """Its decode rows ran once per iteration; so did its prompt tokens x layers."""
        self.passed(event)
        for span in self._spans[event.replica]:
            for chunk in span.prefill:
                scheduled = span.layers * chunk.tokens
                self._prefill[event.replica] += scheduled
                self._of_request[chunk.request_id] += scheduled

    def passed(self, event: IterationsEnded | IterationsPassed) -> None:
        """Decodes ran once per iteration."""
        self._decode[event.replica] += self._rows[event.replica] * len(event.end_ns)

    def retried(self, event: Retried) -> None:
        """What it had computed was for nothing."""
        self._lost[event.replica] += self._of_request.pop(event.request_id, 0)

    def run_ended(self, event: RunEnded) -> None:
        """Compare three counts: of iterations, of the log's rows and of the records."""
        for replica, (setup, log) in enumerate(
            zip(self.book.setup.replicas, event.logs, strict=True)
        ):
            prompts = outputs = 0
            for record in event.records:
                emitted = 0
                moved = record.prefill_replica >= 0
                where = record.prefill_replica if moved else record.replica
                for run in record.runs:
                    # its first prompt ran where it was prefilled, all else where it is
                    if where == replica and not run.resumed:
                        prompts += record.request.prompt_tokens + emitted
                    where = record.replica
                    if where == replica:
                        outputs += run.decodes
                    emitted += 1 + run.stop - run.start
            prompts -= self.book.replicas[replica].skipped_tokens
            outputs += self.book.replicas[replica].lost_rows
            prefill, decode = self._prefill[replica], self._decode[replica]
            self._compare(
                event,
                replica,
                "prompt tokens x layers",
                prefill,
                sum(log.prefill_layer_tokens) if log.detailed else prefill,
                prompts * setup.limits.num_layers + self._lost[replica],
            )
            self._compare(
                event,
                replica,
                "decode rows",
                decode,
                sum(log.decode_tokens) if log.detailed else decode,
                outputs,
            )

    def _compare(self, event: RunEnded, replica: int, what: str, *counts: int) -> None:
        if len(set(counts)) > 1:
            scheduled, logged, owed = counts
            raise self.broken(
                f"{scheduled} {what} scheduled, {logged} logged, {owed} for requests",
                event.time_ns,
                replica=replica,
            )


class OutputExactness(Check):
    """Who finishes, and with how many tokens."""

    name = "output-exactness"
    law = "A request finishes with its last of min(output, context - prompt) tokens."

    def ended(self, event: IterationsEnded) -> None:
        """Compare those who finished with those who owe nothing."""
        for entry, time_ns in self.book.finished:
            if entry.request.id not in event.finished or time_ns != event.time_ns:
                raise self.broken(
                    f"has its {entry.owed} tokens since {time_ns} ns",
                    event.time_ns,
                    request=entry.request.id,
                    replica=event.replica,
                )
        if len(event.finished) != len(self.book.finished):
            owed = {entry.request.id for entry, _ in self.book.finished}
            early = next((i for i in event.finished if i not in owed), None)
            raise self.broken(
                "finishes twice or before its last token",
                event.time_ns,
                request=early,
                replica=event.replica,
            )

    def run_ended(self, event: RunEnded) -> None:
        """The records promise and count the same."""
        for record in event.records:
            owed = self.book.entries[record.request.id].owed
            emitted = sum(1 + run.stop - run.start for run in record.runs)
            if not record.output_tokens == owed == emitted:
                raise self.broken(
                    f"{record.output_tokens} output tokens recorded, {emitted} emitted,"
                    f" {owed} owed",
                    event.time_ns,
                    request=record.request.id,
                )
