"""Queue disciplines by name: a new one is one file here and one line in the registry.

A scheduler says what an iteration runs; the discipline says who is admitted first. Any
of them goes with any scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sim.queues.fcfs import FirstComeFirstServed
from sim.queues.queue import WaitingQueue
from sim.queues.sjf import ShortestJobFirst
from sim.queues.vtc import VirtualTokenCounter

__all__ = ["QUEUES", "WaitingQueue"]

QUEUES: Mapping[str, Callable[[], WaitingQueue]] = MappingProxyType(
    {
        "fcfs": FirstComeFirstServed,
        "sjf": ShortestJobFirst,
        "vtc": VirtualTokenCounter,
    }
)
"""Every queue discipline by its configuration name."""
