"""Events with a documented order at equal times: (time, kind, sequence)."""

from __future__ import annotations

from enum import IntEnum

from simpy import Environment, Event


class Kind(IntEnum):
    """Order of events at the same nanosecond.

    Arrivals come first, so that a plan made at a time sees every request that arrived
    by then; iterations end before new ones are planned.
    """

    ARRIVAL = 0
    ITERATION_END = 1
    PLAN = 2


def now_ns(env: Environment) -> int:
    """Simulated time; SimPy types it as a float, but every delay here is an int."""
    return int(env.now)


def after(env: Environment, delay_ns: int, kind: Kind) -> Event:
    """An event that happens ``delay_ns`` from now, ordered by ``kind`` among equals."""
    event = Event(env)
    event._ok = True
    event._value = None
    env.schedule(event, priority=kind, delay=delay_ns)  # type: ignore[arg-type]
    return event
