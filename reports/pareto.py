"""Which operating points nothing beats, and where an SLO stops being met."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def pareto_front(
    points: npt.NDArray[np.float64], minimise: tuple[bool, ...]
) -> npt.NDArray[np.bool_]:
    """Mark the points that no other point dominates.

    A point dominates another if it is at least as good in every objective and better
    in one, so equal points stay or fall together. A point with a NaN is never on the
    front and dominates nothing. One vectorised pass per point: O(n^2 d) for n points
    in d objectives, which is instant for the sizes of a sweep and valid for any d.

    Args:
        points: Shape (n, d), one row per point.
        minimise: For each objective, whether small is good (else large is).

    Returns:
        Shape (n,), True on the front.

    Raises:
        ValueError: ``points`` is not (n, d) with d = len(minimise).
    """
    if points.ndim != 2 or points.shape[1] != len(minimise):
        expected = f"(n, {len(minimise)})"
        raise ValueError(f"points have shape {points.shape}, expected {expected}")
    costs = np.where(minimise, points, -points)
    front: npt.NDArray[np.bool_] = np.logical_not(np.isnan(costs).any(axis=1))
    for index in np.flatnonzero(front):
        no_worse = (costs <= costs[index]).all(axis=1)
        better = (costs < costs[index]).any(axis=1)
        front[index] = not (no_worse & better).any()
    return front


def rate_at_attainment(
    rates: npt.ArrayLike, attainment: npt.ArrayLike, level: float = 0.9
) -> float:
    """Highest rate that still reaches an SLO attainment, linearly interpolated.

    Read as the layered-prefill paper reads its Fig. 3 (arXiv 2510.08055): between
    the last measured rate at or above the level and the next one, below it.

    Args:
        rates: Shape (n,), req/s, in any order; points with a NaN are left out.
        attainment: Shape (n,), same unit as ``level``.
        level: The attainment asked for.

    Returns:
        The rate in req/s; NaN if the level is never reached, or still exceeded at
        the highest rate, so that the answer lies outside the range.
    """
    x = np.asarray(rates, dtype=np.float64)
    y = np.asarray(attainment, dtype=np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    order = np.argsort(x[known], kind="stable")
    x, y = x[known][order], y[known][order]
    reached = np.flatnonzero(y >= level)
    if reached.size == 0:
        return math.nan
    last = int(reached[-1])
    if last == x.size - 1:
        return float(x[last]) if y[last] == level else math.nan
    share = (y[last] - level) / (y[last] - y[last + 1])
    return float(x[last] + share * (x[last + 1] - x[last]))
