"""Iterations in a row that only decode: one entry of a log, written out late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sim.step import DecodeCosts, Int64


class DecodeStretch(NamedTuple):
    """Iterations in a row that decode the same requests.

    Attributes:
        costs: Costs of at least as many.
        ends: End of each (ns).
        cycle: New KV blocks of the first ones, over and over.
    """

    costs: DecodeCosts
    ends: Int64
    cycle: Sequence[int]

    @property
    def steps(self) -> int:
        """How many they are."""
        return self.ends.size


def write_out(
    stretches: Sequence[DecodeStretch], starts_ns: Int64
) -> tuple[Int64, Int64, Int64]:
    """Start and end of each iteration, and KV blocks taken since its stretch began.

    Args:
        stretches: At least one; all of one engine.
        starts_ns: Start of each.
    """
    steps = np.array([stretch.steps for stretch in stretches])
    first = np.cumsum(steps) - steps
    ends = np.concatenate([stretch.ends for stretch in stretches])
    starts = np.empty_like(ends)
    starts[1:] = ends[:-1]
    starts[first] = starts_ns
    taken = np.cumsum([stretch.cycle for stretch in stretches], axis=1)
    of = np.repeat(np.arange(steps.size), steps)
    cycles, tick = np.divmod(np.arange(ends.size) - first[of], taken.shape[1])
    blocks = taken[of, tick] + cycles * taken[of, -1] - taken[of, 0]
    return starts, ends, blocks
