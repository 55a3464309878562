"""Simulated time, and the only module that imports SimPy.

Events at equal times have a documented order: (time, kind, replica, sequence).
"""

from __future__ import annotations

from collections.abc import Generator
from enum import IntEnum
from typing import Final

from simpy import Environment, Event, Interrupt

__all__ = ["Clock", "Interrupt", "Kind", "Moment", "Process"]

_MAX_REPLICAS: Final = 1 << 32

Process = Generator[Event, None, None]
"""A process: yields the moments it waits for."""
Moment = Event
"""A point in time that processes wait for; ``succeed()`` brings it about now."""


class Kind(IntEnum):
    """Order of events at the same nanosecond.

    Arrivals come first, so that a plan made at a time sees every request that arrived
    by then; iterations end before replicas fail or come back, and those that are there
    plan last. Among replicas the lower index goes first, whenever its event was
    scheduled.
    """

    ARRIVAL = 0
    ITERATION_END = 1
    FLEET = 2
    PLAN = 3


class Clock(Environment):
    """SimPy's environment, in integer nanoseconds since the start of the run."""

    @property
    def now_ns(self) -> int:
        """Simulated time; SimPy types it as a float, but every delay here is an int."""
        return self._now  # type: ignore[return-value]

    @property
    def busy_now(self) -> bool:
        """Whether something else is still to happen at this very time."""
        return self.peek() <= self._now

    def after(self, delay_ns: int, kind: Kind, replica: int = 0) -> Moment:
        """The moment ``delay_ns`` from now, by ``kind`` and replica among equals."""
        event = Event(self)
        event._ok = True
        event._value = None
        priority = kind * _MAX_REPLICAS + replica
        self.schedule(event, priority=priority, delay=delay_ns)  # type: ignore[arg-type]
        return event
