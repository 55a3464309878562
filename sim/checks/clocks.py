"""Time: events in order, replicas busy exactly while they have work."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sim.checks.book import CLOCK, Book
from sim.checks.check import Check
from sim.checks.ledger import Phase
from sim.events import (
    Arrived,
    IterationsCut,
    IterationsEnded,
    IterationsPassed,
    IterationStarted,
    Queued,
    Rejected,
    ReplicaDown,
    ReplicaDraining,
    ReplicaStarting,
    ReplicaUp,
    Retried,
    RunEnded,
    Sent,
    Stalled,
    Stranded,
    Timed,
)
from sim.request import Request
from sim.transfer_events import (
    Offered,
    PartSent,
    StreamStarted,
    StreamWithdrawn,
    TransferEnded,
    TransferStarted,
)

# Order at equal times. Sending and delivery are caused by any of the first three.
_ARRIVAL, _ITERATION_END, _FLEET, _PLAN = range(4)


class ClockOrder(Check):
    """Events come by (time, kind, replica); iterations take time, one after another."""

    name = CLOCK
    law = "By time; at equal times arrivals, iteration ends, outages, plans by replica."

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._now_ns = 0
        self._kind = _ARRIVAL
        self._replica = 0
        self._coming: int = 0
        self._start_ns: dict[int, int] = {}
        self._off: set[int] = set()

    def arrived(self, event: Arrived) -> None:
        """First turns come in workload order, each at its time; later ones follow."""
        request = self.book.entries[event.request_id].request
        if request.think_ns is not None:
            self._answered(event, request.think_ns)
            return
        self._follows(event, _ARRIVAL, _ARRIVAL)
        request = self._next_session()
        if (request.id, request.arrival_ns) != (event.request_id, event.time_ns):
            raise self.broken(
                f"request {request.id} comes next, at {request.arrival_ns} ns",
                event.time_ns,
                request=event.request_id,
            )

    def _next_session(self) -> Request:
        requests = self.book.setup.requests
        while requests[self._coming].think_ns is not None:
            self._coming += 1
        self._coming += 1
        return requests[self._coming - 1]

    def _answered(self, event: Arrived, think_ns: int) -> None:
        """A later turn comes its think time after the turn before it has left."""
        self._follows(event, _ARRIVAL, _FLEET)
        before = self.book.entries[event.request_id - 1]
        left = before.phase in (Phase.FINISHED, Phase.REJECTED)
        if not left or event.time_ns != before.since_ns + think_ns:
            raise self.broken(
                f"the turn before is {before.phase} since {before.since_ns} ns, think"
                f" time {think_ns} ns",
                event.time_ns,
                request=event.request_id,
            )

    def passed_on(
        self,
        event: Sent
        | Queued
        | Rejected
        | Offered
        | TransferEnded
        | StreamWithdrawn
        | Retried
        | Stranded
        | ReplicaDraining
        | ReplicaStarting
        | ReplicaUp,
    ) -> None:
        """Sent, delivered or given back, before plans are made."""
        self._follows(event, _ARRIVAL, _FLEET)

    sent = queued = rejected = transfer_ended = withdrawn = passed_on
    retried = stranded = draining = starting = passed_on

    def offered(self, event: Offered) -> None:
        """Given back, or as an iteration begins where KV caches move early."""
        if self.book.setup.streams:
            self._follows(event, _PLAN, _PLAN, event.replica)
        else:
            self.passed_on(event)

    def part_sent(self, event: PartSent) -> None:
        """Whenever there is something to send."""
        self._follows(event, _ARRIVAL, _PLAN)

    def up(self, event: ReplicaUp) -> None:
        """After the iterations that end by then, but one that drains may stay on."""
        if event.replica in self._off:
            self._off.remove(event.replica)
            self._follows(event, _FLEET, _FLEET, event.replica)
        else:
            self.passed_on(event)

    def down(self, event: ReplicaDown) -> None:
        """A failure comes after the iterations that end by then."""
        self._off.add(event.replica)
        if event.failed:
            self._follows(event, _FLEET, _FLEET, event.replica)
        else:
            self._follows(event, _ARRIVAL, _FLEET)

    def passed(self, event: IterationsPassed) -> None:
        """Iterations ended one after the other, the last one before now.

        Told when something comes, which an offer does when another replica plans.
        """
        latest = _PLAN if self.book.setup.streams else _FLEET
        self._follows(event, _ARRIVAL, latest)
        start_ns = self._start_ns.pop(event.replica)
        self._go_on(event, (start_ns, *event.end_ns, event.time_ns))
        self._start_ns[event.replica] = event.end_ns[-1]

    def cut(self, event: IterationsCut) -> None:
        """Some of an iteration has passed."""
        self._follows(event, _FLEET, _FLEET, event.replica)
        self._go_on(event, (self._start_ns.pop(event.replica), event.time_ns))

    def _go_on(
        self,
        event: IterationsPassed | IterationsEnded | IterationsCut,
        knots_ns: Sequence[int],
    ) -> None:
        """Check that times increase."""
        if any(a >= b for a, b in pairwise(knots_ns)):
            raise self.broken(
                f"iterations end at {knots_ns[1:]} after a start at {knots_ns[0]}",
                event.time_ns,
                replica=event.replica,
            )

    def planned(self, event: TransferStarted | StreamStarted | Stalled) -> None:
        """What a replica does instead of an iteration, or just before it."""
        self._follows(event, _PLAN, _PLAN, event.replica)

    transfer_started = stream_started = stalled = planned

    def started(self, event: IterationStarted) -> None:
        """A plan, made when all that happens by now has happened."""
        self._follows(event, _PLAN, _PLAN, event.replica)
        self._start_ns[event.replica] = event.time_ns

    def ended(self, event: IterationsEnded) -> None:
        """Iterations end one after the other, the last one now."""
        self._follows(event, _ITERATION_END, _ITERATION_END, event.replica)
        self._go_on(event, (self._start_ns.pop(event.replica), *event.end_ns))
        if event.end_ns[-1] != event.time_ns:
            raise self.broken(
                f"the last iteration ends at {event.end_ns[-1]}",
                event.time_ns,
                replica=event.replica,
            )

    def run_ended(self, event: RunEnded) -> None:
        """Nothing comes later."""
        self._follows(event, _PLAN, _PLAN)
        if self._start_ns:
            raise self.broken("an iteration never ended", event.time_ns)

    def _follows(
        self, event: Timed, kind: int, latest: int, replica: int | None = None
    ) -> None:
        """Check that the event may come after those at the same time.

        Args:
            event: What happens.
            kind: What it is.
            latest: Of what kind the last event at the same time may be.
            replica: Whose, if replicas go in order.
        """
        now_ns, same = event.time_ns, event.time_ns == self._now_ns
        overtaken = (
            same
            and replica is not None
            and kind == self._kind
            and replica < self._replica
        )
        if now_ns < self._now_ns or (same and self._kind > latest) or overtaken:
            raise self.broken(
                f"a {type(event).__name__} after an event of kind {self._kind} of"
                f" replica {self._replica} at {self._now_ns} ns",
                now_ns,
                request=getattr(event, "request_id", None),
                replica=getattr(event, "replica", None),
            )
        if not same or kind > self._kind:
            self._kind, self._replica = kind, 0
        if replica is not None and kind == self._kind:
            self._replica = replica
        self._now_ns = now_ns


class BusyTime(Check):
    """Busy by iterations, idle when empty, stalled by KV caches, off: all of it."""

    name = "busy-time"
    law = "Busy + idle + stalled + off = horizon per replica; durations are busy."

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._start_ns: dict[int, int] = {}
        self._busy_ns: dict[int, int] = {}
        self._idle_ns: dict[int, int] = {}
        self._empty_since: dict[int, int] = {}
        self._stalled_ns: dict[int, int] = {}
        self._stalled_since: dict[int, int] = {}
        self._occupied: set[int] = set()
        self._off_ns: dict[int, int] = {}
        self._off_since: dict[int, int] = {}

    def queued(self, event: Queued) -> None:
        """An empty engine has work again."""
        if event.state.present == 1:
            self._fill(event.replica, event.time_ns)

    def transfer_started(self, event: TransferStarted | StreamStarted) -> None:
        """An empty engine is no longer if somebody is on the way to it."""
        if event.replica not in self._occupied:
            self._fill(event.replica, event.time_ns)

    stream_started = transfer_started

    def withdrawn(self, event: StreamWithdrawn) -> None:
        """The last who was to come does not."""
        if event.state.present == 0 and event.replica in self._occupied:
            self._resume(event.replica, event.time_ns)
            self._empty(event.replica, event.time_ns)

    def transfer_ended(self, event: TransferEnded) -> None:
        """The last cache may leave an engine that has nothing to run."""
        if event.state.present == 0:
            self._resume(event.source, event.time_ns)
            self._empty(event.source, event.time_ns)

    def stalled(self, event: Stalled) -> None:
        """Neither busy nor empty from now on."""
        self._stalled_since.setdefault(event.replica, event.time_ns)

    def _fill(self, replica: int, time_ns: int) -> None:
        since = self._empty_since.pop(replica, 0)
        self._add(self._idle_ns, replica, time_ns - since)
        self._occupied.add(replica)

    def _empty(self, replica: int, time_ns: int) -> None:
        self._empty_since[replica] = time_ns
        self._occupied.discard(replica)

    def _resume(self, replica: int, time_ns: int) -> None:
        since = self._stalled_since.pop(replica, time_ns)
        self._add(self._stalled_ns, replica, time_ns - since)

    def started(self, event: IterationStarted) -> None:
        """Remember when."""
        self._resume(event.replica, event.time_ns)
        self._start_ns[event.replica] = event.time_ns

    def down(self, event: ReplicaDown) -> None:
        """Neither busy nor idle from now on."""
        if event.replica not in self._occupied:
            self._fill(event.replica, event.time_ns)
        self._occupied.discard(event.replica)
        self._off_since[event.replica] = event.time_ns

    def up(self, event: ReplicaUp | ReplicaStarting) -> None:
        """Idle again, if it was off."""
        since = self._off_since.pop(event.replica, None)
        if since is not None:
            self._add(self._off_ns, event.replica, event.time_ns - since)
            self._empty(event.replica, event.time_ns)

    starting = up

    def ended(self, event: IterationsEnded) -> None:
        """An engine without requests is idle."""
        self.cut(event)
        if event.state.present == 0:
            self._empty(event.replica, event.time_ns)

    def cut(self, event: IterationsEnded | IterationsCut) -> None:
        """Compare its length with its price."""
        busy_ns = event.time_ns - self._start_ns[event.replica]
        if event.cost.duration_ns != busy_ns:
            raise self.broken(
                f"iterations took {busy_ns} ns and cost {event.cost.duration_ns}",
                event.time_ns,
                replica=event.replica,
            )
        self._add(self._busy_ns, event.replica, busy_ns)

    def run_ended(self, event: RunEnded) -> None:
        """Compare both with the log and the horizon."""
        for replica, log in enumerate(event.logs):
            busy_ns = self._busy_ns.get(replica, 0)
            idle_ns, off_ns = (d.get(replica, 0) for d in (self._idle_ns, self._off_ns))
            if replica in self._off_since:
                off_ns += event.time_ns - self._off_since[replica]
            else:
                idle_ns += event.time_ns - self._empty_since.get(replica, 0)
            logged = sum(log.end_ns) - sum(log.start_ns) if log.detailed else busy_ns
            if not busy_ns == logged == log.totals["duration_ns"]:
                raise self.broken(
                    f"busy {busy_ns} ns, logged {logged}, summed"
                    f" {log.totals['duration_ns']}",
                    event.time_ns,
                    replica=replica,
                )
            stalled_ns = self._stalled_ns.get(replica, 0)
            if busy_ns + idle_ns + stalled_ns + off_ns != event.time_ns:
                raise self.broken(
                    f"busy {busy_ns} + idle {idle_ns} + stalled {stalled_ns} + off"
                    f" {off_ns} ns is not the horizon",
                    event.time_ns,
                    replica=replica,
                )

    @staticmethod
    def _add(totals: dict[int, int], replica: int, amount: int) -> None:
        totals[replica] = totals.get(replica, 0) + amount
