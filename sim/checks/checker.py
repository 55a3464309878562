"""The observer that checks every law on every event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sim.checks.book import Book
from sim.checks.check import Check
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
    ReplicaDraining,
    ReplicaStarting,
    ReplicaUp,
    Retried,
    RunEnded,
    RunStarted,
    Sent,
    Stalled,
    Stranded,
)
from sim.transfer_events import (
    Offered,
    PartSent,
    StreamStarted,
    StreamWithdrawn,
    TransferEnded,
    TransferStarted,
)

METHODS: Mapping[type, str] = MappingProxyType(
    {
        RunStarted: "run_started",
        Arrived: "arrived",
        Sent: "sent",
        Queued: "queued",
        Rejected: "rejected",
        IterationStarted: "started",
        IterationsPassed: "passed",
        IterationsEnded: "ended",
        Offered: "offered",
        TransferStarted: "transfer_started",
        TransferEnded: "transfer_ended",
        StreamStarted: "stream_started",
        PartSent: "part_sent",
        StreamWithdrawn: "withdrawn",
        Stalled: "stalled",
        IterationsCut: "cut",
        ReplicaDraining: "draining",
        ReplicaDown: "down",
        ReplicaStarting: "starting",
        ReplicaUp: "up",
        Retried: "retried",
        Stranded: "stranded",
        RunEnded: "run_ended",
    }
)
"""The method of a check that is called with an event."""


class Checker:
    """An :class:`~sim.events.Observer` of one run; raises at the first broken law.

    Attributes:
        events: Events seen.
    """

    def __init__(self, checks: Sequence[type[Check]]) -> None:
        self._book = Book()
        made = [check(self._book) for check in checks]
        self._calls: dict[type, tuple[Callable[[Any], None], ...]] = {
            event: tuple(getattr(c, name) for c in made if hasattr(c, name))
            for event, name in METHODS.items()
        }
        self.events = 0

    def on(self, event: Event) -> None:
        """Take note of an event and hold every law against it.

        Raises:
            InvariantError: If one is broken.
        """
        self.events += 1
        self._book.note(event)
        for call in self._calls[type(event)]:
            call(event)
