"""Flows over time: what is under way, at which rates, and when the next one ends.

Rates are piecewise constant and exact; ends are the first whole nanosecond at which
nothing is left to do. While the resources suffice for all, a flow's rate is its own and
nothing is worked out anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from sim.machine.max_min import Flow, Rate, alone, max_min_rates

Watch = Callable[[int, dict[int, Rate]], None]
"""Is told (time, rates by flow) whenever rates may have changed."""

_MOST_KEPT: Final = 4096
"""Sets of flows whose rates are kept: layers repeat, and so do their rates."""


@lru_cache(_MOST_KEPT)
def _rates(
    flows: tuple[tuple[tuple[tuple[int, int], ...], int | None], ...],
    capacities: tuple[int, ...],
) -> tuple[Rate, ...]:
    """Rates of flows given by what they use and their caps."""
    return tuple(max_min_rates([Flow(0, *flow) for flow in flows], capacities))


class Fluid:
    """Flows under way on shared resources.

    Args:
        capacities: Of the resources, bytes/s, > 0.
        watch: Is told the rates in force from a time on; changes nothing.

    Attributes:
        now_ns: Time, which :meth:`advance` moves.
    """

    def __init__(self, capacities: Sequence[int], watch: Watch | None = None) -> None:
        self.now_ns = 0
        self._capacities = tuple(capacities)
        self._watch = watch
        self._wanted: list[Rate] = [0] * len(self._capacities)
        self._flows: dict[int, Flow] = {}
        self._full: dict[int, Rate] = {}
        self._rates: dict[int, Rate] = {}
        self._left: dict[int, Rate] = {}
        self._since: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._throttled = False
        self._stale = False

    def start(self, key: int, flow: Flow) -> None:
        """Begin a flow now, under a key that is not in use."""
        size, uses, cap = flow
        full = alone(flow, self._capacities) if cap is None else cap
        self._flows[key] = flow
        self._full[key] = full
        self._left[key] = size
        self._rates[key] = full
        self._since[key] = self.now_ns
        self._ends[key] = self.now_ns - (-size // full)
        wanted, capacities = self._wanted, self._capacities
        if self._throttled:
            self._stale = True
        for resource, weight in uses:
            total = wanted[resource] = wanted[resource] + weight * full
            if total > capacities[resource]:
                self._stale = True

    def next_end_ns(self) -> int | None:
        """When the next flow ends if none begins before; None without flows."""
        if self._stale:
            self._share()
        if self._watch is not None:
            self._watch(self.now_ns, dict(self._rates))
        return min(self._ends.values()) if self._ends else None

    def advance(self, to_ns: int) -> list[int]:
        """Move on to a time not after the next end; returns the keys that end then."""
        self.now_ns = to_ns
        ended = [key for key, end_ns in self._ends.items() if end_ns <= to_ns]
        wanted = self._wanted
        for key in ended:
            full = self._full.pop(key)
            for resource, weight in self._flows.pop(key).uses:
                wanted[resource] -= weight * full
            del self._ends[key], self._rates[key], self._left[key], self._since[key]
        if self._throttled and ended:
            self._stale = True
        return ended

    def _share(self) -> None:
        """Work out every rate again, as of now."""
        now_ns, left, since = self.now_ns, self._left, self._since
        flows = tuple([flow[1:] for flow in self._flows.values()])
        shared = _rates(flows, self._capacities)
        self._throttled = False
        for key, rate in zip(self._flows, shared, strict=True):
            remaining = left[key] - self._rates[key] * (now_ns - since[key])
            left[key], since[key], self._rates[key] = remaining, now_ns, rate
            self._ends[key] = now_ns - (-remaining // rate)
            if rate < self._full[key]:
                self._throttled = True
        self._stale = False


def run_flows(
    arrivals: Sequence[tuple[int, Flow]],
    capacities: Sequence[int],
    watch: Watch | None = None,
) -> list[int]:
    """End of each flow (ns) when flows begin at given times.

    Args:
        arrivals: (start in ns, flow), in order of time.
        capacities: Of the resources, bytes/s, > 0.
        watch: As of :class:`Fluid`.
    """
    fluid = Fluid(capacities, watch)
    ends = [0] * len(arrivals)
    begun = 0
    while True:
        end_ns = fluid.next_end_ns()
        start_ns = arrivals[begun][0] if begun < len(arrivals) else None
        if end_ns is None and start_ns is None:
            return ends
        if start_ns is None or (end_ns is not None and end_ns <= start_ns):
            assert end_ns is not None  # noqa: S101  (one of the two is a time)
            for key in fluid.advance(end_ns):
                ends[key] = end_ns
        else:
            fluid.advance(start_ns)
            fluid.start(begun, arrivals[begun][1])
            begun += 1
