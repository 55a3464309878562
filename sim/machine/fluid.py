"""Flows over time: what is under way, at which rates, and when the next one ends.

Rates are piecewise constant and exact; ends are the first whole nanosecond at which
nothing is left to do. A flow alone runs at its own rate; rates are looked up when one
joins others, and worked out anew only for those whose rate changes.
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

Demand = tuple[tuple[tuple[int, int], ...], Rate | None]
"""What a flow uses, and its cap: what its rate depends on, whatever its size."""


@lru_cache(_MOST_KEPT)
def _shared(
    demands: tuple[Demand, ...], capacities: tuple[int, ...]
) -> tuple[tuple[Rate, ...], bool]:
    """Rates of flows under way together, and whether any of them is held back."""
    flows = [Flow(0, *demand) for demand in demands]
    full = [alone(flow, capacities) for flow in flows]
    left: list[Rate] = list(capacities)
    for flow, rate in zip(flows, full, strict=True):
        for resource, weight in flow.uses:
            left[resource] -= weight * rate
    if min(left, default=0) >= 0:
        return tuple(full), False
    return tuple(max_min_rates(flows, capacities)), True


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
        self._demands: dict[int, Demand] = {}
        # Rate, since when, and what was left then.
        self._moving: dict[int, tuple[Rate, int, Rate]] = {}
        self._ends: dict[int, int] = {}
        self._throttled = False
        self._stale = False

    def start(self, key: int, flow: Flow) -> None:
        """Begin a flow now, under a key that is not in use.

        Its cap, if it has one, is at most what its resources allow.
        """
        size, uses, cap = flow
        now_ns, ends = self.now_ns, self._ends
        full = alone(flow, self._capacities) if cap is None else cap
        if ends:
            self._stale = True
        self._demands[key] = (uses, cap)
        self._moving[key] = (full, now_ns, size)
        ends[key] = now_ns - (-size // full)

    def next_end_ns(self) -> int | None:
        """When the next flow ends if none begins before; None without flows."""
        if self._stale:
            self._share()
        if self._watch is not None:
            rates = {key: rate for key, (rate, _, _) in self._moving.items()}
            self._watch(self.now_ns, rates)
        return min(self._ends.values()) if self._ends else None

    def advance(self, to_ns: int) -> list[int]:
        """Move on to a time not after the next end; returns the keys that end then."""
        self.now_ns = to_ns
        ends = self._ends
        ended = []
        for key in tuple(ends):
            if ends[key] <= to_ns:
                del self._demands[key], self._moving[key], ends[key]
                ended.append(key)
        if self._throttled and ended:
            self._stale = True
        return ended

    def _share(self) -> None:
        """Work out every rate again, as of now."""
        self._stale = False
        demands, throttled = tuple(self._demands.values()), self._throttled
        shared, self._throttled = _shared(demands, self._capacities)
        if not (throttled or self._throttled):
            return
        now_ns, moving, ends = self.now_ns, self._moving, self._ends
        for key, rate in zip(self._demands, shared, strict=True):
            before, since_ns, left = moving[key]
            if rate != before:  # else the end stays, to the nanosecond
                left -= before * (now_ns - since_ns)
                moving[key] = (rate, now_ns, left)
                ends[key] = now_ns - (-left // rate)


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
            while begun < len(arrivals) and arrivals[begun][0] == start_ns:
                flow = arrivals[begun][1]
                fluid.start(begun, flow._replace(cap=alone(flow, capacities)))
                begun += 1
