"""Prices of iterations: sensible one by one, and conserved when summed up."""

from __future__ import annotations

import math
from operator import add
from typing import Final

from sim.checks.book import Book
from sim.checks.check import Check
from sim.events import IterationsCut, IterationsEnded, RunEnded
from sim.step import NUM_COUNTS, StepCost

AMOUNTS: Final = StepCost._fields[:NUM_COUNTS]
ENERGY: Final = StepCost._fields[NUM_COUNTS:]
_NOTHING: Final = (0,) * len(StepCost._fields)
_PARTS_NS: Final = ("wait_ns", "extrapolated_ns")
_EPSILON: Final = 2.0**-52
"""Sums of n floats >= 0, in any order, are within n times this of each other."""


class StepCosts(Check):
    """What the latency model may answer."""

    name = "step-cost"
    law = "Durations > 0; no amount is negative or infinite; parts <= durations."

    def ended(self, event: IterationsEnded | IterationsCut) -> None:
        """Look at every amount."""
        cost = event.cost
        whole = isinstance(sum(cost[:NUM_COUNTS]), int)
        if not whole or min(cost) < 0 or not math.isfinite(sum(cost)):
            raise self._of(event, f"negative, infinite or not an integer: {cost}")
        if cost.duration_ns < 1:
            raise self._of(event, f"duration_ns = {cost.duration_ns}")
        for name in _PARTS_NS:
            if getattr(cost, name) > cost.duration_ns:
                raise self._of(
                    event, f"{name} = {getattr(cost, name)} of {cost.duration_ns}"
                )

    cut = ended

    def _of(self, event: IterationsEnded | IterationsCut, what: str) -> Exception:
        return self.broken(what, event.time_ns, replica=event.replica)


class CostConservation(Check):
    """Energy, bytes and FLOPs of the iterations, against the log's sums."""

    name = "energy-conservation"
    law = "Energy (run + wait + HBM + FLOP), bytes and FLOPs add up to the totals."

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._sums: dict[int, tuple[float, ...]] = {}

    def ended(self, event: IterationsEnded | IterationsCut) -> None:
        """Add every amount."""
        sums = self._sums.get(event.replica, _NOTHING)
        self._sums[event.replica] = tuple(map(add, sums, event.cost))

    cut = ended

    def run_ended(self, event: RunEnded) -> None:
        """Compare with the log: integers exactly, joules to rounding."""
        for replica, log in enumerate(event.logs):
            seen_sums = self._sums.get(replica, _NOTHING)
            sums = dict(zip(StepCost._fields, seen_sums, strict=True))
            terms = len(log) + len(ENERGY)
            for name, logged in log.totals.items():
                seen = sums[name]
                if not _equal(seen, logged, terms if name in ENERGY else 0):
                    raise self._of(event, replica, f"{name} = {logged}, sum {seen}")
            total_j = math.fsum(sums[name] for name in ENERGY)
            logged_j = math.fsum(log.energy_j)
            if log.detailed and not _equal(total_j, logged_j, terms):
                raise self._of(
                    event, replica, f"{logged_j} J by iteration, {total_j} J by part"
                )

    def _of(self, event: RunEnded, replica: int, what: str) -> Exception:
        return self.broken(what, event.time_ns, replica=replica)


def _equal(a: float, b: float, terms: int) -> bool:
    """Exactly, or as sums of ``terms`` floats may differ."""
    return a == b or (terms > 0 and abs(a - b) <= terms * _EPSILON * max(a, b))
