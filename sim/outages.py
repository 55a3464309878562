"""When replicas are away: outages to come, and the time they were off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.request import RequestRecord


@dataclass(frozen=True, slots=True)
class Outage:
    """A replica fails, or is drained, and comes back.

    Attributes:
        replica: Index.
        start_ns: When it fails at once, or takes no new requests any more.
        end_ns: When it takes requests again; later than ``start_ns``.
        failure: Whether it fails; else it is drained.
    """

    replica: int
    start_ns: int
    end_ns: int
    failure: bool


@dataclass(frozen=True, slots=True)
class Outages:
    """All outages of a run.

    Attributes:
        of: Those of each replica, in order, apart from each other; or nothing.
        endless: Whether a law goes on after the last of them, so that a run which gets
            there cannot be finished.
    """

    of: tuple[Sequence[Outage], ...] = ()
    endless: bool = False

    def __bool__(self) -> bool:
        """Whether any replica is ever away."""
        return any(map(len, self.of))


NO_OUTAGES = Outages()


@dataclass(frozen=True, slots=True)
class OffSpan:
    """A stretch of time in which a replica took no power.

    Attributes:
        start_ns: From.
        end_ns: To; None if it was still off when the run ended.
        paid: Whether it was paid for all the same: a failed machine under repair is, a
            drained one is given back.
    """

    start_ns: int
    end_ns: int | None
    paid: bool

    def within_ns(self, horizon_ns: int) -> tuple[int, int]:
        """Start and end of the part before a time."""
        end_ns = horizon_ns if self.end_ns is None else min(self.end_ns, horizon_ns)
        return min(self.start_ns, horizon_ns), end_ns


@dataclass(frozen=True, slots=True)
class FleetLog:
    """What became of replicas in a run.

    Attributes:
        off: Stretches without power of each replica, in order; or nothing.
        lost: Attempts that failures ended, as records without a finish.
        starts: How often the autoscaler started one.
    """

    off: tuple[Sequence[OffSpan], ...] = ()
    lost: Sequence[RequestRecord] = ()
    starts: int = 0

    def off_ns(self, horizon_ns: int) -> int:
        """Time without power before ``horizon_ns``, summed over replicas."""
        return _sum_ns([span for spans in self.off for span in spans], horizon_ns)

    def unpaid_ns(self, horizon_ns: int) -> int:
        """The part of it that costs nothing."""
        unpaid = [span for spans in self.off for span in spans if not span.paid]
        return _sum_ns(unpaid, horizon_ns)


def _sum_ns(spans: Sequence[OffSpan], horizon_ns: int) -> int:
    parts = [span.within_ns(horizon_ns) for span in spans]
    return sum(end_ns - start_ns for start_ns, end_ns in parts)
