"""Gaps between output tokens, counted by iteration instead of token by token."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from sim.request import TokenRun
from sim.units import NS_PER_MS
from sim.weighted import Int64, Weighted


class ReplicaGaps:
    """Inter-token latencies of the requests of one replica.

    All requests that decode in two iterations in a row share the gap between their
    ends, so it is enough to count them; only the gap after a run's first token is a
    request's own.

    Args:
        decode_end_ns: End of each iteration of the replica that decoded.
    """

    def __init__(self, decode_end_ns: Sequence[int]) -> None:
        self._ends = np.asarray(decode_end_ns, dtype=np.int64)
        self._steps = np.diff(self._ends)  # step k: from iteration k to k + 1
        self._joined = np.zeros(self._ends.size + 1, dtype=np.int64)
        self._own = array("q")

    def add(self, runs: Sequence[TokenRun]) -> int:
        """Count the gaps of one request; returns the largest, 0 if it has none."""
        worst, last_ns = 0, None
        for run in runs:
            if last_ns is not None:
                worst = max(worst, self._count_own(run.first_ns - last_ns))
            last_ns = run.first_ns
            if run.stop > run.start:
                first_end = int(self._ends[run.start])
                worst = max(worst, self._count_own(first_end - run.first_ns))
                last_ns = int(self._ends[run.stop - 1])
            if run.stop > run.start + 1:
                self._joined[run.start] += 1
                self._joined[run.stop - 1] -= 1
                steps = self._steps[run.start : run.stop - 1]
                worst = max(worst, int(steps.max()))
        return worst

    def _count_own(self, gap_ns: int) -> int:
        self._own.append(gap_ns)
        return gap_ns

    def counted(self) -> tuple[Int64, Int64]:
        """Distinct gaps (ns) and how many requests had each, shape (m,)."""
        shared = np.cumsum(self._joined)[: self._steps.size]
        happened = shared > 0
        own = np.array(self._own, dtype=np.int64)
        values = np.concatenate((self._steps[happened], own))
        ones = np.ones(own.size, dtype=np.int64)
        return values, np.concatenate((shared[happened], ones))


def pooled_ms(replicas: Sequence[ReplicaGaps]) -> Weighted:
    """Gaps of all requests of a run, in milliseconds."""
    if not replicas:
        return Weighted.of([])
    values, counts = zip(*(replica.counted() for replica in replicas), strict=True)
    return Weighted(np.concatenate(values) / NS_PER_MS, np.concatenate(counts))
