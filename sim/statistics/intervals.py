"""Confidence intervals of means and percentiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

LEVEL: Final = 0.95
BATCHES: Final = 20
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the interval around it, in the unit of the data.

    Attributes:
        estimate: Mean or percentile; NaN without data.
        low: Lower end; NaN where data are too few for an interval.
        high: Upper end; the same.
        count: Independent observations behind it.
    """

    estimate: float
    low: float
    high: float
    count: int

    @property
    def half_width(self) -> float:
        """Half of the interval; NaN where there is none."""
        return (self.high - self.low) / 2


def mean_interval(values: npt.ArrayLike, level: float = LEVEL) -> Interval:
    """Student-t interval of the mean of independent observations.

    For replications of a run: one observation each, never single requests, which
    share a queue (Law, Simulation Modeling and Analysis, 5th ed., 9.4.1).

    Args:
        values: Shape (n,); missing ones (NaN) are left out.
        level: How often the interval shall hold the mean.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if known.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = math.fsum(known.tolist()) / known.size
    if known.size == 1:
        return Interval(mean, math.nan, math.nan, 1)
    variance = math.fsum((v - mean) ** 2 for v in known.tolist()) / (known.size - 1)
    half = t_quantile(known.size - 1, level) * math.sqrt(variance / known.size)
    return Interval(mean, mean - half, mean + half, known.size)


def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """Student's t that a share ``level`` of the law lies within, on both sides."""
    from scipy.special import stdtrit  # noqa: PLC0415  (slow to import)

    return float(stdtrit(degrees, (1 + level) / 2))


def batch_means_half_width(values: _Floats, batches: int = BATCHES) -> float:
    """Half the 95 % confidence interval of the mean of a correlated series.

    Batch means (Law, 5th ed., 9.5.3): means over stretches of consecutive values,
    whose sizes differ by at most one, are taken as independent and normal. 10 to 30
    batches are advised by Schmeiser, Oper. Res. 30 (1982) 556-568.

    Args:
        values: The series in order, shape (n,).
        batches: How many stretches.

    Returns:
        The half width, or NaN with fewer values than batches.
    """
    if values.size < batches:
        return math.nan
    means = [
        math.fsum(batch.tolist()) / batch.size
        for batch in np.array_split(values, batches)
    ]
    return mean_interval(means).half_width


def quantile_interval(
    values: npt.ArrayLike, share: float, level: float = LEVEL
) -> Interval:
    """Percentile with an interval between order statistics, for any law.

    The number of observations below the percentile is binomial, so ranks bound it
    with at least the level asked for (David and Nagaraja, Order Statistics, 3rd ed.,
    7.1). Observations count as independent: for the requests of one run it tells how
    much the sample's size allows, not the chance of another arrival sequence.

    Args:
        values: Shape (n,); missing ones (NaN) are left out.
        share: 0.99 for the 99th percentile.
        level: How often the interval shall hold the percentile.

    Returns:
        The percentile as numpy has it; ends NaN with fewer observations than
        :func:`required_for_quantile` says.
    """
    known = np.sort(np.asarray(values, dtype=np.float64))
    known = known[~np.isnan(known)]
    n = known.size
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    estimate = float(np.percentile(known, 100 * share))
    low, high = _ranks(n, share, level)
    if low < 1 or high > n:
        return Interval(estimate, math.nan, math.nan, n)
    return Interval(estimate, float(known[low - 1]), float(known[high - 1]), n)


def required_for_quantile(share: float, level: float = LEVEL) -> int:
    """Observations that a percentile's interval needs (368 for p99 at 95 %)."""
    tail = math.log((1 - level) / 2)
    return math.ceil(tail / math.log(max(share, 1 - share)))


def _ranks(n: int, share: float, level: float) -> tuple[int, int]:
    """Ranks, from 1, whose order statistics enclose the percentile.

    The largest low rank with P(X < low) <= alpha / 2 and the smallest high one with
    P(X >= high) <= alpha / 2, X binomial (n, share); 0 or n + 1 where there is none.
    """
    from scipy.special import bdtr  # noqa: PLC0415  (slow to import)

    below = bdtr(np.arange(n + 1, dtype=np.float64), n, share)  # P(X <= k)
    alpha = (1 - level) / 2
    low = int(np.searchsorted(below, alpha, side="right"))
    high = int(np.searchsorted(below, 1 - alpha, side="left")) + 1
    return low, high
