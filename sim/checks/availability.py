"""Replicas that come and go: none works while it is away, nobody is lost with one."""

from __future__ import annotations

from sim.checks.book import Book
from sim.checks.check import Check
from sim.checks.ledger import Phase
from sim.events import (
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
    Stranded,
)


class Availability(Check):
    """What replicas and client do while some replicas are away."""

    name = "availability"
    law = "Replicas that are away take and run nothing; who is lost is sent again."

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._draining: set[int] = set()
        self._down_ns: dict[int, int] = {}
        self._starting: set[int] = set()
        self._on_way: dict[int, int] = {}  # where to, by request
        self._stranded: set[int] = set()

    @property
    def _away(self) -> int:
        return len(self._draining) + len(self._down_ns) + len(self._starting)

    def _is_away(self, replica: int) -> bool:
        away = (self._draining, self._down_ns, self._starting)
        return any(replica in which for which in away)

    def sent(self, event: Sent) -> None:
        """To a replica that takes requests."""
        self._stranded.discard(event.request_id)
        self._on_way[event.request_id] = event.replica
        if self._is_away(event.replica):
            raise self._of(event, "is sent to a replica that is away")

    def delivered(self, event: Queued | Rejected) -> None:
        """A replica that drains still takes what was sent to it before."""
        self._on_way.pop(event.request_id, None)
        self._works(event)

    queued = rejected = delivered

    def started(self, event: IterationStarted) -> None:
        """Nothing runs on a replica that is off, and nobody waits without need."""
        self._works(event)
        self._all_sent(event)

    def ended(self, event: IterationsEnded) -> None:
        """Nothing ran there."""
        self._works(event)

    def passed(self, event: IterationsPassed) -> None:
        """Nothing ran there, and nobody is done in a run that goes on."""
        self._works(event)
        if self.book.finished:
            raise self._of(event, "a request finished in a run that goes on")

    def _works(
        self,
        event: Queued
        | Rejected
        | IterationStarted
        | IterationsPassed
        | IterationsEnded,
    ) -> None:
        if event.replica in self._starting:
            raise self._of(event, "works before it has started")
        if event.replica in self._down_ns:
            raise self._of(event, f"is off since {self._down_ns[event.replica]} ns")

    def draining(self, event: ReplicaDraining) -> None:
        """From taking requests to finishing them."""
        if self._is_away(event.replica):
            raise self._of(event, "drains although it is away")
        self._draining.add(event.replica)

    def down(self, event: ReplicaDown) -> None:
        """Off for want of work, or failed."""
        draining = event.replica in self._draining
        if event.failed == draining or event.replica in self._down_ns:
            raise self._of(event, "goes off twice, or without having drained")
        if draining and not self._empty(event.replica):
            raise self._of(event, "goes off with requests")
        self._draining.discard(event.replica)
        self._down_ns[event.replica] = event.time_ns

    def starting(self, event: ReplicaStarting) -> None:
        """On again, not yet there."""
        if self._down_ns.pop(event.replica, None) is None:
            raise self._of(event, "starts without having been off")
        self._starting.add(event.replica)

    def up(self, event: ReplicaUp) -> None:
        """Back from where it was."""
        if not self._is_away(event.replica):
            raise self._of(event, "comes back without having been away")
        if event.replica in self._draining and self._empty(event.replica):
            raise self._of(event, "has drained and did not go off")
        self._draining.discard(event.replica)
        self._starting.discard(event.replica)
        self._down_ns.pop(event.replica, None)

    def _empty(self, replica: int) -> bool:
        """Whether nobody is there or on the way."""
        coming = replica in self._on_way.values()
        return not coming and not self.book.replicas[replica].present

    def retried(self, event: Retried) -> None:
        """At once, or when it does not get there."""
        down_ns = self._down_ns.get(event.replica, -1)
        refused = self._on_way.pop(event.request_id, None) is not None
        if down_ns < 0 or (down_ns != event.time_ns and not refused):
            raise self._of(event, f"is lost by a replica that is off since {down_ns}")
        self._stranded.add(event.request_id)

    def stranded(self, event: Stranded) -> None:
        """Nobody takes it."""
        if self._away < len(self.book.replicas):
            raise self._of(event, "is not sent although a replica takes requests")
        self._stranded.add(event.request_id)

    def run_ended(self, event: RunEnded) -> None:
        """Everybody has been sent again."""
        self._all_sent(event)

    def _all_sent(self, event: IterationStarted | RunEnded) -> None:
        """Nobody is lost or waits at the client while a replica takes requests."""
        lost = [i for i, e in self.book.lost.items() if e.phase is Phase.LOST]
        if self._away < len(self.book.replicas):
            lost += self._stranded
        if lost:
            raise self.broken("waits to be sent", event.time_ns, request=lost[0])

    def _of(self, event: object, what: str) -> Exception:
        return self.broken(
            what,
            getattr(event, "time_ns", 0),
            request=getattr(event, "request_id", None),
            replica=getattr(event, "replica", None),
        )
