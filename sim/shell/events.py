"""Events with a documented order at equal times: (time, kind, replica, sequence)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from simpy import Environment, Event

_MAX_REPLICAS: Final = 1 << 32


class Kind(IntEnum):
    """Order of events at the same nanosecond.

    Arrivals come first, so that a plan made at a time sees every request that arrived
    by then; iterations end before new ones are planned. Among replicas the lower index
    goes first, whenever its event was scheduled.
    """

    ARRIVAL = 0
    ITERATION_END = 1
    PLAN = 2


def now_ns(env: Environment) -> int:
    """Simulated time; SimPy types it as a float, but every delay here is an int."""
    return int(env.now)


def after(env: Environment, delay_ns: int, kind: Kind, replica: int = 0) -> Event:
    """An event ``delay_ns`` from now, ordered by ``kind`` and replica among equals."""
    event = Event(env)
    event._ok = True
    event._value = None
    priority = kind * _MAX_REPLICAS + replica
    env.schedule(event, priority=priority, delay=delay_ns)  # type: ignore[arg-type]
    return event
