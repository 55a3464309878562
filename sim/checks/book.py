"""The book of a run: takes note of every event, and refuses impossible ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sim.checks.ledger import LIFECYCLE, Entry, Phase, ReplicaBook
from sim.errors import InvariantError
from sim.events import (
    Arrived,
    Event,
    IterationsCut,
    IterationsEnded,
    IterationsPassed,
    IterationStarted,
    Queued,
    Rejected,
    ReplicaDown,
    Retried,
    RunStarted,
    Sent,
    Stalled,
    Stranded,
)
from sim.plan import StepPlan, SwapPlan
from sim.request import Request
from sim.transfer_events import (
    Offered,
    StreamStarted,
    StreamWithdrawn,
    TransferEnded,
    TransferStarted,
)
from sim.view import EngineLimits

CLOCK: Final = "clock-order"


class Book:
    """State of a run, rebuilt from its events.

    Attributes:
        setup: How the run began.
        entries: Every request by id.
        replicas: By index.
        under_way: The iteration each replica runs, or None.
        finished: Requests that the last iterations' end must have finished, with the
            time of their last token.
        lost: Requests that failed replicas had.
    """

    def __init__(self) -> None:
        self.setup = RunStarted((), (), None, 0)
        self.entries: dict[int, Entry] = {}
        self.replicas: list[ReplicaBook] = []
        self.under_way: list[IterationStarted | None] = []
        self.finished: list[tuple[Entry, int]] = []
        self.lost: dict[int, Entry] = {}
        self._methods: dict[type, Callable[[Any], None]] = {
            RunStarted: self._run_started,
            Arrived: self._arrived,
            Sent: self._sent,
            Queued: self._queued,
            Rejected: self._rejected,
            IterationStarted: self._started,
            IterationsPassed: self._passed,
            IterationsEnded: self._ended,
            IterationsCut: self._cut,
            ReplicaDown: self._down,
            Retried: self._retried,
            Stranded: self._stranded,
            Offered: self._offered,
            Stalled: self._join_arrived,
            TransferStarted: self._transfer_started,
            TransferEnded: self._transfer_ended,
            StreamStarted: self._stream_started,
            StreamWithdrawn: self._withdrawn,
        }

    def note(self, event: Event) -> None:
        """Take note of an event.

        Raises:
            InvariantError: If it cannot follow what went before.
        """
        method = self._methods.get(type(event))
        if method is not None:
            method(event)

    def entry(self, request_id: int, time_ns: int) -> Entry:
        """A request.

        Raises:
            InvariantError: If the workload has no such request.
        """
        entry = self.entries.get(request_id)
        if entry is None:
            raise InvariantError(
                LIFECYCLE, "is not in the workload", time_ns, request_id
            )
        return entry

    def _run_started(self, event: RunStarted) -> None:
        self.setup = event
        self.replicas = [ReplicaBook(setup) for setup in event.replicas]
        self.under_way = [None] * len(event.replicas)
        self.entries = {
            request.id: Entry(request, 0, request.prompt_tokens)
            for request in event.requests
        }

    def _arrived(self, event: Arrived) -> None:
        self.entry(event.request_id, event.time_ns).move(Phase.HELD, event.time_ns)

    def _sent(self, event: Sent) -> None:
        entry = self.entry(event.request_id, event.time_ns)
        if entry.phase is not Phase.STRANDED:
            entry.sent_ns = event.time_ns
        entry.move(Phase.SENT, event.time_ns)
        entry.routed_ns, entry.replica = event.time_ns, event.replica

    def _stranded(self, event: Stranded) -> None:
        entry = self.entry(event.request_id, event.time_ns)
        entry.move(Phase.STRANDED, event.time_ns)
        entry.sent_ns = event.time_ns

    def _down(self, event: ReplicaDown) -> None:
        replica = self.replicas[event.replica]
        here = (*replica.waiting, *replica.prefilling, *replica.decoding)
        for request_id in here if event.failed else ():
            entry = self.lost[request_id] = self.entries[request_id]
            replica.lose(entry, event.time_ns)

    def _retried(self, event: Retried) -> None:
        entry = self._here(event.request_id, event)
        self.lost.pop(event.request_id, None)
        entry.move(Phase.STRANDED, event.time_ns)
        entry.start_over()

    def _queued(self, event: Queued) -> None:
        entry = self._here(event.request_id, event)
        entry.move(Phase.WAITING, event.time_ns)
        replica = self.replicas[event.replica]
        entry.entered_ns = event.time_ns
        entry.owed = _owed(entry.request, replica.setup.limits)
        replica.waiting.append(event.request_id)

    def _rejected(self, event: Rejected) -> None:
        self._here(event.request_id, event).move(Phase.REJECTED, event.time_ns)

    def _here(
        self,
        request_id: int,
        event: Queued
        | Rejected
        | IterationStarted
        | IterationsEnded
        | Offered
        | Retried,
    ) -> Entry:
        """A request that must belong to the replica of the event."""
        entry = self.entry(request_id, event.time_ns)
        if event.replica != entry.replica:
            sent = f"was sent to replica {entry.replica}"
            at = (event.time_ns, request_id, event.replica)
            raise InvariantError(LIFECYCLE, sent, *at)
        return entry

    def _started(self, event: IterationStarted) -> None:
        if self.under_way[event.replica] is not None:
            raise InvariantError(
                *(CLOCK, "an iteration begins in another", event.time_ns),
                replica=event.replica,
            )
        self.under_way[event.replica] = event
        replica, plan = self.replicas[event.replica], event.plan
        self._join_arrived(event)
        outward: tuple[int, ...] = ()
        if isinstance(plan, SwapPlan):
            outward = plan.swapped_out
            for request_id in plan.swapped_in:
                self._swap_in(replica, self._here(request_id, event), event.time_ns)
        for request_id in plan.preempted:
            entry = self._here(request_id, event)
            if request_id in outward:
                self._swap_out(replica, entry, event.time_ns)
            else:
                self._preempt(replica, entry, event.time_ns)
        for chunk in plan.spans[0].prefill:
            entry = self._here(chunk.request_id, event)
            if entry.phase is not Phase.PREFILLING:
                self._admit(replica, entry, chunk.start, event.time_ns)
        if plan.spans[0].decode and replica.decoding:
            replica.reserve(event.time_ns)

    def _join_arrived(self, event: IterationStarted | Stalled) -> None:
        """Whose cache is there decodes from the next plan on, even a dropped one."""
        replica = self.replicas[event.replica]
        for entry in [e for e in replica.incoming.values() if e.phase is Phase.ARRIVED]:
            entry.move(Phase.DECODING, event.time_ns)
            del replica.incoming[entry.request.id]
            replica.join(entry)

    def _preempt(self, replica: ReplicaBook, entry: Entry, time_ns: int) -> None:
        entry.move(Phase.WAITING, time_ns)
        replica.leave(entry)
        replica.free_blocks(entry, time_ns)
        replica.waiting.appendleft(entry.request.id)
        entry.preemptions += 1
        entry.goal = entry.request.prompt_tokens + entry.emitted
        entry.computed = entry.cached = 0

    def _swap_out(self, replica: ReplicaBook, entry: Entry, time_ns: int) -> None:
        entry.move(Phase.SWAPPED, time_ns)
        replica.leave(entry)
        replica.swap_out(entry, time_ns)
        replica.waiting.appendleft(entry.request.id)
        entry.preemptions += 1
        # The last token was emitted and is not stored yet.
        entry.goal = entry.request.prompt_tokens + entry.emitted - 1

    def _swap_in(self, replica: ReplicaBook, entry: Entry, time_ns: int) -> None:
        entry.move(Phase.DECODING, time_ns)
        replica.waiting.remove(entry.request.id)
        replica.swap_in(entry, time_ns)

    def _admit(
        self, replica: ReplicaBook, entry: Entry, cached: int, time_ns: int
    ) -> None:
        entry.move(Phase.PREFILLING, time_ns)
        replica.waiting.remove(entry.request.id)
        replica.prefilling[entry.request.id] = entry
        blocks = replica.setup.limits.blocks(entry.goal)
        replica.take_blocks(entry, blocks, time_ns)
        if replica.setup.prefix_caching:
            entry.computed = entry.cached = cached
            entry.skipped += cached
            replica.skipped_tokens += cached
            replica.share(entry, cached, time_ns)
        if entry.first_scheduled_ns is None:
            entry.first_scheduled_ns = time_ns
            entry.cached_first = entry.cached

    def _ended(self, event: IterationsEnded) -> None:
        replica, spans = self.replicas[event.replica], self._end_plan(event).spans
        if spans[0].decode and replica.decoding:
            self._decode(replica, event)
        for chunk in spans[-1].prefill:
            entry = self._here(chunk.request_id, event)
            entry.computed += chunk.tokens
            replica.share(entry, entry.computed, event.time_ns)
            if entry.computed >= entry.goal:
                self._emit_first(replica, entry, event.time_ns)

    def _end_plan(self, event: IterationsEnded | IterationsCut) -> StepPlan:
        """The plan under way, which is no longer."""
        plan = self._plan_of(event)
        self.under_way[event.replica] = None
        return plan

    def _plan_of(
        self, event: IterationsPassed | IterationsEnded | IterationsCut
    ) -> StepPlan:
        """The plan under way; nobody has finished in the iterations to come."""
        started = self.under_way[event.replica]
        if started is None:
            raise InvariantError(
                *(CLOCK, "no iteration is under way", event.time_ns),
                replica=event.replica,
            )
        self.finished = []
        return started.plan

    def _cut(self, event: IterationsCut) -> None:
        self._end_plan(event)

    def _passed(self, event: IterationsPassed) -> None:
        replica, spans = self.replicas[event.replica], self._plan_of(event).spans
        if spans[0].decode and replica.decoding:
            self._decode(replica, event)
            replica.reserve(event.end_ns[-1])

    def _decode(
        self, replica: ReplicaBook, event: IterationsEnded | IterationsPassed
    ) -> None:
        previous_ns: int | None = None
        for end_ns in event.end_ns:
            if previous_ns is not None:
                replica.reserve(previous_ns)
            for entry in replica.decoded(end_ns):
                entry.move(Phase.FINISHED, end_ns)
                replica.leave(entry)
                self._finish(replica, entry, end_ns)
            previous_ns = end_ns

    def _emit_first(self, replica: ReplicaBook, entry: Entry, time_ns: int) -> None:
        last = entry.emitted + 1 >= entry.owed
        onward = Phase.PARKED if replica.setup.hands_over else Phase.DECODING
        entry.move(Phase.FINISHED if last else onward, time_ns)
        entry.emitted += 1
        entry.run_first_ns = time_ns
        if entry.first_token_ns is None:
            entry.first_token_ns = time_ns
        del replica.prefilling[entry.request.id]
        if last:
            replica.close_run(entry, replica.tick)
            self._finish(replica, entry, time_ns)
        elif onward is Phase.PARKED:
            entry.parked_ns = time_ns
            replica.parked[entry.request.id] = entry
            if entry.pulled:
                entry.move(Phase.MOVING, time_ns)
        else:
            replica.join(entry)

    def _finish(self, replica: ReplicaBook, entry: Entry, time_ns: int) -> None:
        entry.finish_ns = time_ns
        entry.stay(time_ns)
        replica.free_blocks(entry, time_ns)
        self.finished.append((entry, time_ns))

    def _offered(self, event: Offered) -> None:
        entry = self._here(event.request_id, event)
        entry.target = event.target
        self.replicas[event.target].offered.append(event.request_id)

    def _transfer_started(self, event: TransferStarted) -> None:
        entry = self.entry(event.request_id, event.time_ns)
        entry.move(Phase.MOVING, event.time_ns)
        self._take(entry, event)
        entry.arrives_ns = event.end_ns

    def _stream_started(self, event: StreamStarted) -> None:
        """Slot and blocks are taken, whether or not its prefill has ended."""
        entry = self.entry(event.request_id, event.time_ns)
        if entry.phase is Phase.PARKED:
            entry.move(Phase.MOVING, event.time_ns)
        elif entry.phase is not Phase.PREFILLING:
            at = (event.time_ns, event.request_id, event.replica)
            raise InvariantError(LIFECYCLE, f"is pulled while {entry.phase}", *at)
        entry.pulled = True
        self._take(entry, event)

    def _take(self, entry: Entry, event: TransferStarted | StreamStarted) -> None:
        target = self.replicas[event.replica]
        first = target.offered.popleft() if target.offered else None
        if first != event.request_id or entry.replica != event.source:
            at = (event.time_ns, event.request_id, event.replica)
            raise InvariantError(LIFECYCLE, f"is pulled before {first}", *at)
        blocks = target.setup.limits.blocks(event.tokens)
        target.hold_incoming(entry, blocks, event.time_ns)
        target.incoming[event.request_id] = entry
        entry.target_ns = event.time_ns

    def _withdrawn(self, event: StreamWithdrawn) -> None:
        """It ended where it was prefilled; what was set aside for it is free."""
        entry, time_ns = self.entry(event.request_id, event.time_ns), event.time_ns
        target = self.replicas[event.replica]
        coming = event.request_id in target.incoming
        offered = event.request_id in target.offered
        if entry.phase is not Phase.FINISHED or coming == offered:
            at = (time_ns, event.request_id, event.replica)
            raise InvariantError(LIFECYCLE, f"is withdrawn while {entry.phase}", *at)
        entry.withdrawn = True
        if offered:
            target.offered.remove(event.request_id)
            return
        target.drop_incoming(entry, time_ns)
        stayed_ns = entry.stays_ns.get(event.replica, 0)
        entry.stays_ns[event.replica] = stayed_ns + time_ns - entry.target_ns

    def _transfer_ended(self, event: TransferEnded) -> None:
        entry, time_ns = self.entry(event.request_id, event.time_ns), event.time_ns
        entry.move(Phase.ARRIVED, time_ns)
        source, target = self.replicas[event.source], self.replicas[event.replica]
        if not (
            event.request_id in source.parked and event.request_id in target.incoming
        ):
            way = f"does not move from replica {event.source}"
            raise InvariantError(
                LIFECYCLE, way, time_ns, event.request_id, event.replica
            )
        del source.parked[event.request_id]
        source.free_blocks(entry, time_ns)
        entry.blocks, entry.moved_blocks = entry.moved_blocks, 0
        entry.stay(time_ns)
        entry.entered_ns = entry.target_ns
        entry.prefill_replica, entry.replica = event.source, event.replica
        # in the order in which they arrive, which is that in which they will decode
        target.incoming[event.request_id] = target.incoming.pop(event.request_id)


def _owed(request: Request, limits: EngineLimits) -> int:
    """The true output length, cut at the context limit."""
    room = limits.max_model_len - request.prompt_tokens
    return min(request.output_tokens, room)
