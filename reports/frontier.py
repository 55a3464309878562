"""Frontiers of sweep points: per group and joint, and how far one lies from another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.hypervolume import hypervolume, value_at
from reports.pareto import pareto_front
from reports.points import Objective, values_of
from sim.errors import ConfigError

_MARGIN: Final = 0.1  # of each objective's extent: where the reference point lies
_PLANE: Final = 2


@dataclass(frozen=True, slots=True)
class Frontiers:
    """Points in two or three objectives, and which of them nothing beats.

    Attributes:
        frame: The points.
        groups: Name of each point's group, shape (n,).
        objectives: What is compared.
        values: Objectives of each point, shape (n, d); NaN where the queue grew.
        on_group: Whether a point is on its group's frontier, shape (n,).
        on_joint: Whether it is on the frontier of all groups together.
    """

    frame: pd.DataFrame
    groups: npt.NDArray[np.str_]
    objectives: tuple[Objective, ...]
    values: npt.NDArray[np.float64]
    on_group: npt.NDArray[np.bool_]
    on_joint: npt.NDArray[np.bool_]

    @property
    def names(self) -> list[str]:
        """Groups in order of appearance."""
        return list(dict.fromkeys(self.groups.tolist()))

    @property
    def costs(self) -> npt.NDArray[np.float64]:
        """The values with those that are good when large turned round."""
        signs = [1.0 if o.minimise else -1.0 for o in self.objectives]
        return self.values * signs


def frontiers(
    frame: pd.DataFrame, objectives: tuple[Objective, ...], by: str = "scheduler"
) -> Frontiers:
    """Find the frontiers of a table of points.

    Args:
        frame: Finished points.
        objectives: Two or three.
        by: Column that groups points.

    Raises:
        ConfigError: If there is no such column, or no point with all objectives.
    """
    if by not in frame:
        raise ConfigError(f'--by "{by}": no such column of the table')
    groups = frame[by].astype(str).to_numpy(dtype=np.str_)
    values = values_of(frame, objectives)
    if np.isnan(values).any(axis=1).all():
        raise ConfigError(
            "no point has all these metrics (points whose queue grew do not count)"
        )
    minimise = tuple(o.minimise for o in objectives)
    on_group = np.zeros(len(frame), dtype=np.bool_)
    for name in dict.fromkeys(groups.tolist()):
        rows = groups == name
        on_group[rows] = pareto_front(values[rows], minimise)
    joint = pareto_front(values, minimise)
    return Frontiers(frame, groups, objectives, values, on_group, joint)


def shift_frame(found: Frontiers, baseline: str) -> pd.DataFrame:
    """How far each group's frontier lies from the baseline's.

    Args:
        found: The frontiers.
        baseline: A group.

    Returns:
        A row per group: ``group``, ``points``, ``on_front``, ``hypervolume_percent``
        (of the box between the best values of all points and a reference 10 % beyond
        the worst), ``hypervolume_change_percent`` against the baseline and, in two
        objectives, ``y_change_percent_at_equal_x`` and the other way round: the mean,
        over the baseline's frontier, of the change of what a group offers where the
        other objective is no worse; NaN where it offers nothing there.

    Raises:
        ConfigError: If there is no such group.
    """
    if baseline not in found.names:
        names = ", ".join(found.names)
        raise ConfigError(f'--baseline "{baseline}": no such group; allowed: {names}')
    costs = found.costs
    known = costs[~np.isnan(costs).any(axis=1)]
    best, worst = known.min(axis=0), known.max(axis=0)
    room = np.where(worst > best, worst - best, np.abs(worst) + (worst == 0))
    reference = worst + _MARGIN * room
    box = float(np.prod(reference - best))
    volumes = {
        name: hypervolume(costs[found.groups == name], reference) / box
        for name in found.names
    }
    rows = []
    for name in found.names:
        group = found.groups == name
        row: dict[str, Any] = {
            "group": name,
            "points": int(group.sum()),
            "on_front": int((group & found.on_group).sum()),
            "hypervolume_percent": 100 * volumes[name],
            "hypervolume_change_percent": _change(volumes[name], volumes[baseline]),
        }
        if len(found.objectives) == _PLANE:
            row |= _equal_changes(found, name, baseline)
        rows.append(row)
    return pd.DataFrame(rows)


def front_frame(found: Frontiers) -> pd.DataFrame:
    """All points with their objectives and ``on_group_front``, ``on_joint_front``."""
    columns = {o.label: found.values[:, i] for i, o in enumerate(found.objectives)}
    marks = {"on_group_front": found.on_group, "on_joint_front": found.on_joint}
    new = pd.DataFrame({"group": found.groups, **columns, **marks})
    old = found.frame.reset_index(drop=True)
    return pd.concat([new, old.drop(columns=[c for c in new if c in old])], axis=1)


def _equal_changes(found: Frontiers, name: str, baseline: str) -> dict[str, float]:
    own = found.costs[found.on_group & (found.groups == name)]
    base = found.costs[found.on_group & (found.groups == baseline)]
    return {
        "y_change_percent_at_equal_x": _mean_change(own, base),
        "x_change_percent_at_equal_y": _mean_change(own[:, ::-1], base[:, ::-1]),
    }


def _mean_change(own: npt.NDArray[np.float64], base: npt.NDArray[np.float64]) -> float:
    changes = [_change(value_at(own, at), cost) for at, cost in base.tolist()]
    known = [change for change in changes if math.isfinite(change)]
    return math.fsum(known) / len(known) if known else math.nan


def _change(new: float, old: float) -> float:
    return 100 * (new / old - 1) if old else math.nan
