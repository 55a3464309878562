"""Replicas in turn."""

from __future__ import annotations

from sim.routers.router import Loads


class RoundRobin:
    """Replicas in turn, whatever their load."""

    def __init__(self) -> None:
        self._next = 0

    def route(self, loads: Loads) -> int:
        """The next open replica after the last one chosen."""
        chosen = self._next
        while chosen not in loads.choices:
            chosen = (chosen + 1) % len(loads)
        self._next = (chosen + 1) % len(loads)
        return chosen
