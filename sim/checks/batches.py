"""Batches: within their limits, never stalled, always getting on, never idle."""

from __future__ import annotations

from sim.checks.book import Book
from sim.checks.check import Check
from sim.checks.ledger import Phase
from sim.events import (
    IterationsEnded,
    IterationStarted,
    Queued,
    ReplicaDown,
    RunEnded,
    Stalled,
)
from sim.plan import StepPlan
from sim.transfer_events import (
    Offered,
    StreamWithdrawn,
    TransferEnded,
)


class BatchLimits(Check):
    """What one iteration may hold."""

    name = "batch-limits"
    law = "Sequences <= max_num_seqs, prompt tokens <= budget, no request twice."

    def started(self, event: IterationStarted) -> None:
        """Count sequences and prompt tokens."""
        replica = self.book.replicas[event.replica]
        limits = replica.setup.limits
        sequences = len(replica.prefilling) + len(replica.decoding)
        sequences += len(replica.incoming)
        if sequences > limits.max_num_seqs:
            raise self._over(event, "sequences", sequences, limits.max_num_seqs)
        for span in event.plan.spans:
            ids = [chunk.request_id for chunk in span.prefill]
            if len(set(ids)) < len(ids):
                raise self._over(event, "chunks of one request", 2, 1)
        tokens, budget = _entering(event.plan), limits.max_num_batched_tokens
        if tokens > budget and not self._outgrown(event.plan):
            raise self._over(event, "prompt tokens", tokens, budget)

    def _outgrown(self, plan: StepPlan) -> bool:
        """Whether it holds one preempted request, which may run alone uncut."""
        chunks = plan.spans[0].prefill
        entries = [self.book.entries[chunk.request_id] for chunk in chunks]
        return len(entries) == 1 and entries[0].preemptions > 0

    def _over(
        self, event: IterationStarted, what: str, number: int, most: int
    ) -> Exception:
        return self.broken(
            f"{number} {what}, allowed: {most}", event.time_ns, replica=event.replica
        )


class StallFreeDecoding(Check):
    """The promise of chunked and layered prefill, layer by layer."""

    name = "stall-free-decoding"
    law = "Under a stall-free policy every iteration takes all decodes on by a token."

    def started(self, event: IterationStarted) -> None:
        """Every layer runs the decode batch."""
        replica = self.book.replicas[event.replica]
        stalled = [span for span in event.plan.spans if not span.decode]
        if replica.setup.stall_free and replica.decoding and stalled:
            raise self.broken(
                f"decodes skip layers {stalled[0].first} to {stalled[0].last - 1}",
                event.time_ns,
                request=next(iter(replica.decoding)),
                replica=event.replica,
            )


class Progress(Check):
    """No loop without end."""

    name = "progress"
    law = "Every iteration runs a token of somebody."

    def started(self, event: IterationStarted) -> None:
        """Look for work in the plan."""
        plan, decoding = event.plan, self.book.replicas[event.replica].decoding
        decodes = bool(decoding) and plan.spans[0].decode
        if not decodes and not any(span.prefill for span in plan.spans):
            raise self.broken(
                "the iteration runs no token", event.time_ns, replica=event.replica
            )


class WorkConservation(Check):
    """No replica waits while it could work, and no slot stays empty."""

    name = "work-conservation"
    law = "Iterations are back to back while there is work; who fits, enters."

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._due_ns: dict[int, int] = {}

    def queued(self, event: Queued) -> None:
        """An idle replica starts now."""
        self._wake(event.replica, event.time_ns)

    def offered(self, event: Offered) -> None:
        """An idle replica takes what is offered now."""
        self._wake(event.target, event.time_ns)

    def transfer_ended(self, event: TransferEnded) -> None:
        """Blocks are free where the cache was, and it can decode where it is."""
        self._wake(event.replica, event.time_ns)
        if self.book.replicas[event.source].present:
            self._wake(event.source, event.time_ns)

    def withdrawn(self, event: StreamWithdrawn) -> None:
        """There may be room for somebody else, or nobody left."""
        replica = self.book.replicas[event.replica]
        if replica.present or replica.offered:
            self._wake(event.replica, event.time_ns)
        else:
            self._due_ns.pop(event.replica, None)

    def _wake(self, replica: int, time_ns: int) -> None:
        if self.book.under_way[replica] is None:
            self._due_ns.setdefault(replica, time_ns)

    def stalled(self, event: Stalled) -> None:
        """Nothing that is here can run, and none of those who wait fits."""
        replica = self.book.replicas[event.replica]
        due_ns = self._due_ns.pop(event.replica, None)
        free = replica.setup.num_blocks - replica.used_blocks
        decodes = bool(replica.decoding) and replica.growing <= free
        ready = decodes or bool(replica.prefilling)
        held = bool(replica.parked or replica.incoming)
        if due_ns != event.time_ns or ready or not held:
            raise self.broken(
                f"stalls with a plan due at {due_ns} ns and something to run: {ready}",
                event.time_ns,
                replica=event.replica,
            )
        self._check_head(event, None)

    def started(self, event: IterationStarted) -> None:
        """It starts when it is due, with all that fits."""
        due_ns = self._due_ns.pop(event.replica, None)
        if due_ns != event.time_ns:
            raise self.broken(
                f"an iteration was due at {due_ns} ns",
                event.time_ns,
                replica=event.replica,
            )
        if not event.plan.preempted:
            self._check_head(event, event.plan)

    def ended(self, event: IterationsEnded) -> None:
        """The next one follows at once while there is work."""
        replica = self.book.replicas[event.replica]
        if replica.present or replica.offered:
            self._due_ns[event.replica] = event.time_ns
        if len(event.end_ns) > 1 and not event.finished and replica.waiting:
            # Whoever could enter the last of these iterations could have entered it.
            head = self.book.entries[replica.waiting[0]]
            if head.since_ns <= event.end_ns[-2]:
                self._check_head(event, None)

    def down(self, event: ReplicaDown) -> None:
        """Nothing is due where nothing is left."""
        self._due_ns.pop(event.replica, None)

    def run_ended(self, event: RunEnded) -> None:
        """Nothing is due any more."""
        for replica, due_ns in self._due_ns.items():
            raise self.broken(
                f"an iteration was due at {due_ns} ns", event.time_ns, replica=replica
            )

    def _check_head(
        self, event: IterationStarted | IterationsEnded | Stalled, plan: StepPlan | None
    ) -> None:
        """The first waiting request lacks a slot, blocks or budget."""
        replica = self.book.replicas[event.replica]
        if not replica.setup.work_conserving or not replica.waiting:
            return
        head, limits = self.book.entries[replica.waiting[0]], replica.setup.limits
        if head.phase is Phase.SWAPPED:
            return  # held by swap-conservation
        decodes = len(replica.decoding)
        tokens = head.goal + decodes + (0 if plan is None else _entering(plan))
        free = replica.setup.num_blocks - replica.used_blocks
        if (
            decodes + len(replica.prefilling) + len(replica.incoming)
            < limits.max_num_seqs
            and limits.blocks(head.goal) <= free
            and tokens <= limits.max_num_batched_tokens
        ):
            raise self.broken(
                f"waits although there is a slot, {free} free blocks and room for its"
                f" {head.goal} tokens",
                event.time_ns,
                request=head.request.id,
                replica=event.replica,
            )


def _entering(plan: StepPlan) -> int:
    """Prompt tokens that enter layer 0."""
    return sum(chunk.tokens for chunk in plan.spans[0].prefill)
