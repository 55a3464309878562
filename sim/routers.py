"""Routers by name: which replica receives the next request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol


class Router(Protocol):
    """Chooses a replica from what a front end can observe."""

    def route(self, outstanding: Sequence[int]) -> int:
        """Index of the replica, given each one's requests in progress."""
        ...


class RoundRobin:
    """Replicas in turn."""

    def __init__(self) -> None:
        self._next = 0

    def route(self, outstanding: Sequence[int]) -> int:
        """The replica after the last one chosen."""
        chosen = self._next
        self._next = (chosen + 1) % len(outstanding)
        return chosen


class LeastOutstandingRequests:
    """The replica with the fewest requests in progress, lowest index on ties."""

    def route(self, outstanding: Sequence[int]) -> int:
        """Index of the least loaded replica."""
        return min(range(len(outstanding)), key=outstanding.__getitem__)


ROUTERS: Mapping[str, Callable[[], Router]] = MappingProxyType(
    {
        "round-robin": RoundRobin,
        "least-outstanding-requests": LeastOutstandingRequests,
    }
)
"""Every router by its configuration name."""
