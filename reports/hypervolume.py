"""How good a set of operating points is as a whole, and how far a frontier moved."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from reports.pareto import pareto_front

_Floats = npt.NDArray[np.float64]
_PLANE: Final = 2


def hypervolume(costs: _Floats, reference: _Floats) -> float:
    """Area or volume that a set dominates, up to a reference point.

    Zitzler and Thiele, PPSN V (1998) 292-301. In two objectives strips between
    sorted points; in three, slabs between sorted last objectives.

    Args:
        costs: Shape (n, d), d = 2 or 3, small is good in all; NaN rows do not count.
        reference: Shape (d,); what is not better than it in all does not count.

    Returns:
        Product of the objectives' units.

    Raises:
        ValueError: d is neither 2 nor 3.
    """
    if costs.ndim != _PLANE or costs.shape[1] not in (_PLANE, _PLANE + 1):
        raise ValueError(f"costs have shape {costs.shape}, expected (n, 2) or (n, 3)")
    inside = costs[(costs < reference).all(axis=1)]
    if inside.shape[1] == _PLANE:
        return _area(inside, reference)
    levels = np.unique(inside[:, -1])
    heights = np.diff(np.append(levels, reference[-1]))
    return math.fsum(
        _area(inside[inside[:, -1] <= level, :-1], reference[:-1]) * height
        for level, height in zip(levels, heights, strict=True)
    )


def _area(costs: _Floats, reference: _Floats) -> float:
    front = np.unique(costs[pareto_front(costs, (True, True))], axis=0)
    rights = np.append(front[1:, 0], reference[0])
    return math.fsum((rights - front[:, 0]) * (reference[1] - front[:, 1]))


def value_at(front: _Floats, at: float) -> float:
    """The second objective that a frontier offers where the first is at most ``at``.

    Steps, not a line: settings between two that were run are not promised.

    Args:
        front: Costs, shape (n, 2).
        at: Bound on the first objective.

    Returns:
        The least second cost; NaN if no point keeps the bound.
    """
    within = front[front[:, 0] <= at, 1]
    return float(within.min()) if within.size else math.nan
