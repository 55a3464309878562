"""Shortest job first, by prompt length."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator
from itertools import chain, count

from sim.view import QueuedRequest


class ShortestJobFirst:
    """The shortest prompt first, ties by arrival.

    Shortest job first minimises the mean wait of a single server (Smith, "Various
    optimizers for single-stage production", 1956). Output lengths are not known, so
    the job is its prefill. Long prompts may starve.
    """

    fixed_order = True
    charges_decodes = False

    def __init__(self) -> None:
        self._preempted: deque[QueuedRequest] = deque()
        self._sorted: list[tuple[int, int, QueuedRequest]] = []
        self._arrivals = count()

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._preempted) + len(self._sorted)

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Preempted ones, then by prompt tokens."""
        return chain(self._preempted, (queued for _, _, queued in self._sorted))

    def push(self, queued: QueuedRequest) -> None:
        """Sort an arrival in."""
        insort(self._sorted, (queued.tokens, next(self._arrivals), queued))

    def push_front(self, queued: QueuedRequest) -> None:
        """Take back a preempted request."""
        self._preempted.appendleft(queued)

    def pop_front(self) -> QueuedRequest:
        """Remove the first."""
        if self._preempted:
            return self._preempted.popleft()
        return self._sorted.pop(0)[2]

    def decoded(self, client: int, tokens: int) -> None:
        """Changes nothing."""

    def clear(self) -> None:
        """Forget everybody."""
        self._preempted.clear()
        self._sorted.clear()
