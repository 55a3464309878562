"""Statistics of numbers that occur many times, without writing each out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_PART: Final = 1 << 16
_SPLIT: Final = float((1 << 27) + 1)  # Veltkamp's constant: halves of 26 bits
_MOST: Final = 1 << 26  # times a half is still exact


@dataclass(frozen=True, slots=True)
class Weighted:
    """A sample in which ``values[i]`` occurs ``counts[i]`` times.

    Every statistic is, to the last bit, that of the sample written out.

    Attributes:
        values: float64, shape (m,).
        counts: How often each occurs, >= 0, int64, shape (m,).
    """

    values: Float64
    counts: Int64

    @classmethod
    def of(cls, values: Sequence[float] | Float64) -> Weighted:
        """A sample of numbers that each occur once."""
        array = np.asarray(values, dtype=np.float64)
        return cls(array, np.ones(array.size, dtype=np.int64))

    @property
    def size(self) -> int:
        """How many numbers the sample holds."""
        return int(self.counts.sum())

    def mean(self) -> float:
        """Mean of the exact sum."""
        return self._sum(self.values) / self.size

    def std(self) -> float:
        """Population standard deviation."""
        off = self.values - self.mean()
        return math.sqrt(self._sum(off * off) / self.size)

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """Percentiles with linear interpolation, as ``numpy.percentile``."""
        order = np.argsort(self.values, kind="stable")
        values, upto = self.values[order], np.cumsum(self.counts[order])
        ranks = np.asarray(percents) / 100 * (self.size - 1)
        below = np.floor(ranks)
        above = np.minimum(below + 1, self.size - 1)
        low, high = (values[upto.searchsorted(r, side="right")] for r in (below, above))
        t, step = ranks - below, high - low
        points = np.where(t < 0.5, low + step * t, high - step * (1 - t))
        return [float(point) for point in points]

    def _sum(self, values: Float64) -> float:
        """Exact sum of ``values`` times counts, rounded once.

        A value's two halves times a count fit in a float (Dekker, Numerische
        Mathematik 18, 1971); ``math.fsum`` adds without error.
        """
        if self.counts.size and int(self.counts.max()) > _MOST:
            raise OverflowError(f"a value occurs more than {_MOST} times")
        turned = _SPLIT * values
        high = turned - (turned - values)
        low = values - high
        return math.fsum(chain(_parts(high * self.counts), _parts(low * self.counts)))


def _parts(values: Float64) -> chain[float]:
    """The numbers as Python's floats, which take much room, part by part."""
    starts = range(0, values.size, _PART)
    return chain.from_iterable(values[i : i + _PART].tolist() for i in starts)
