"""Simulated time, and the only module that imports SimPy.

Events at equal times have a documented order: (time, kind, replica, sequence).
"""

from __future__ import annotations

from collections.abc import Generator
from enum import IntEnum
from typing import Final

import simpy
from simpy import Environment, Event, Interrupt

__all__ = ["Clock", "Interrupt", "Kind", "Moment", "Process", "Running"]

_MAX_REPLICAS: Final = 1 << 32

Process = Generator[Event, None, None]
"""A process: yields the moments it waits for."""
Moment = Event
"""A point in time that processes wait for; ``succeed()`` brings it about now."""
Running = simpy.Process
"""A process that was started; ``interrupt()`` ends its wait with an Interrupt."""


class Kind(IntEnum):
    """Order of events at the same nanosecond.

    Arrivals come first, so that a plan made at a time sees every request that arrived
    by then; iterations end before new ones are planned. Among replicas the lower index
    goes first, whenever its event was scheduled.
    """

    ARRIVAL = 0
    ITERATION_END = 1
    PLAN = 2


class Clock:
    """Integer nanoseconds since the start of the run, and what happens at them."""

    def __init__(self) -> None:
        self._env = Environment()

    @property
    def now_ns(self) -> int:
        """Simulated time; SimPy types it as a float, but every delay here is an int."""
        return int(self._env.now)

    @property
    def busy_now(self) -> bool:
        """Whether something else is still to happen at this very time."""
        return self._env.peek() <= self._env.now

    def after(self, delay_ns: int, kind: Kind, replica: int = 0) -> Moment:
        """The moment ``delay_ns`` from now, by ``kind`` and replica among equals."""
        event = Event(self._env)
        event._ok = True
        event._value = None
        priority = kind * _MAX_REPLICAS + replica
        self._env.schedule(event, priority=priority, delay=delay_ns)  # type: ignore[arg-type]
        return event

    def moment(self) -> Moment:
        """A moment that comes when its ``succeed()`` is called."""
        return self._env.event()

    def start(self, process: Process) -> Running:
        """Begin a process now."""
        return self._env.process(process)

    def run(self) -> None:
        """Let time pass until nothing is left to happen."""
        self._env.run()
