"""Swap preemption: KV blocks that leave the GPUs come back, and nothing else does."""

from __future__ import annotations

from sim.checks.book import Book
from sim.checks.check import Check
from sim.checks.ledger import Phase, ReplicaBook
from sim.events import (
    IterationsEnded,
    IterationStarted,
    Retried,
    RunEnded,
    Stated,
    stated_by,
)
from sim.plan import SwapPlan
from sim.swapping import watermark_blocks


class SwapConservation(Check):
    """The host pool, block by block, and who goes there and comes back when.

    Whoever is preempted goes to the host if it has room, and comes back in order of the
    queue as soon as the GPUs have: for its blocks, one more and the watermark beside
    others, or for its next token alone.
    """

    name = "swap-conservation"
    law = (
        "Blocks out = blocks in of who finishes; host pool never over; who fits moves."
    )

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._out: dict[int, int] = {}  # KV blocks that went, by request
        self._queues: dict[int, tuple[int, ...]] = {}  # as of the last event

    def state(self, event: Stated) -> None:
        """Compare the host pool with what its requests hold there."""
        index = stated_by(event)
        replica = self.book.replicas[index]
        used, most = event.state.host_blocks, replica.setup.host_blocks
        if used != replica.host_blocks or not 0 <= used <= most:
            raise self.broken(
                f"{used} of {most} host blocks used, its requests hold"
                f" {replica.host_blocks}",
                event.time_ns,
                replica=index,
            )
        if most:
            self._queues[index] = tuple(replica.waiting)

    queued = transfer_started = transfer_ended = stalled = down = state

    def started(self, event: IterationStarted) -> None:
        """Count the copies of a plan, and look for those it leaves out."""
        replica = self.book.replicas[event.replica]
        if replica.setup.host_blocks or isinstance(event.plan, SwapPlan):
            plan = event.plan
            copies = plan if isinstance(plan, SwapPlan) else SwapPlan(plan.spans)
            self._check_in(event, copies)
            self._check_out(event, copies, replica)
            self._check_head(event, replica)
        self.state(event)

    def _check_in(self, event: IterationStarted, copies: SwapPlan) -> None:
        """They come from the front of the queue, with all that went."""
        back = copies.swapped_in
        first = self._queues.get(event.replica, ())[: len(back)]
        if back != first:
            raise self._of(event, f"{back} come back before {first}")
        blocks = sum(self._out.pop(request_id, 0) for request_id in back)
        if copies.blocks_in != blocks:
            raise self._of(
                event, f"{copies.blocks_in} blocks in of {blocks} on the host"
            )

    def _check_out(
        self, event: IterationStarted, copies: SwapPlan, replica: ReplicaBook
    ) -> None:
        """Who is preempted goes to the host if it has room."""
        entries, limits = self.book.entries, replica.setup.limits
        gone = {i: entries[i].host_blocks for i in copies.swapped_out}
        self._out |= gone
        if copies.blocks_out != sum(gone.values()):
            raise self._of(
                event, f"{copies.blocks_out} blocks out of {sum(gone.values())} held"
            )
        room = replica.setup.host_blocks - replica.host_blocks + copies.blocks_out
        for request_id in event.plan.preempted:
            if request_id in gone:
                room -= gone[request_id]
            elif limits.blocks(entries[request_id].goal - 1) <= room:
                raise self._of(
                    event, f"loses its blocks with {room} free on the host", request_id
                )

    def _check_head(self, event: IterationStarted, replica: ReplicaBook) -> None:
        """The first in the queue is not left on the host if there is room for it.

        Only where nobody was admitted, who might have been before it.
        """
        plan, setup = event.plan, replica.setup
        quiet = plan.spans[0].decode and not plan.spans[0].prefill
        if plan.preempted or not quiet or not replica.waiting:
            return
        head = self.book.entries[replica.waiting[0]]
        running = len(replica.prefilling) + len(replica.decoding)
        left = setup.num_blocks - replica.used_blocks - head.host_blocks - 1
        if (
            head.phase is Phase.SWAPPED
            and running < setup.limits.max_num_seqs
            and left >= watermark_blocks(setup.num_blocks)
        ):
            raise self._of(event, "is left on the host", head.request.id)

    def ended(self, event: IterationsEnded) -> None:
        """Whoever finishes has all that went to the host back."""
        for entry, time_ns in self.book.finished:
            if entry.swapped_in != entry.swapped_out:
                raise self.broken(
                    f"{entry.swapped_out} blocks went to the host,"
                    f" {entry.swapped_in} came back",
                    time_ns,
                    request=entry.request.id,
                    replica=event.replica,
                )
        self.state(event)

    def retried(self, event: Retried) -> None:
        """What the host had of it is lost."""
        self._out.pop(event.request_id, None)

    def run_ended(self, event: RunEnded) -> None:
        """The hosts are empty."""
        for index, replica in enumerate(self.book.replicas):
            if replica.host_blocks or self._out:
                raise self.broken(
                    f"{replica.host_blocks} blocks are left on the host",
                    event.time_ns,
                    replica=index,
                )

    def _of(
        self, event: IterationStarted, what: str, request: int | None = None
    ) -> Exception:
        return self.broken(what, event.time_ns, request=request, replica=event.replica)
