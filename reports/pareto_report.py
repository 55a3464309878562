"""The report of a sweep's frontiers: tables and figures in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Final

import pandas as pd

from reports.figures.objectives import objectives_figure
from reports.figures.save import save_figure
from reports.frontier import Frontiers, front_frame, frontiers, shift_frame
from reports.points import averaged, objective
from sim.files import write_csv_atomic

STANDARD: Final = (
    ("ttft", "tbt"),
    ("user_speed", "gpu_speed"),
    ("tbt", "energy"),
    ("goodput", "cost"),
)
"""The usual figures, (x, y): TTFT-TBT; speed per user against throughput per GPU;
joules per token against p99 TBT; dollars per million tokens against goodput."""
_LONGEST_LABEL: Final = 30


def pareto_sets(
    frame: pd.DataFrame,
    metrics: Sequence[Sequence[str]] = STANDARD,
    *,
    by: str = "scheduler",
) -> list[tuple[str, Frontiers]]:
    """The frontiers of a table in each set of metrics, with a name for files.

    Replications are averaged first.

    Args:
        frame: Finished points, see :func:`reports.points.read_points`.
        metrics: Sets of two or three names, see :func:`reports.points.objective`.
        by: Column that groups points.

    Raises:
        ConfigError: If a name is unknown or no point has all the metrics.
    """
    means = averaged(frame, varied_keys(frame))
    return [
        (
            "-".join(name.replace(":", "-") for name in names),
            frontiers(means, tuple(objective(name, means) for name in names), by),
        )
        for names in metrics
    ]


def write_pareto(
    sets: Sequence[tuple[str, Frontiers]], directory: Path, baseline: str | None = None
) -> list[Path]:
    """Write ``pareto-NAME.csv``, ``pareto-shift.csv`` and the figures of each set.

    Three metrics give a figure for each pair, with the frontier of all three.

    Args:
        sets: See :func:`pareto_sets`.
        directory: An existing folder.
        baseline: Group that others are compared with; None for the first.

    Returns:
        The files written.

    Raises:
        ConfigError: If a file cannot be written or there is no such group.
    """
    paths, shifts = [], []
    for name, found in sets:
        shift = shift_frame(found, baseline or found.names[0])
        shifts.append(shift.assign(metrics=name))
        table = directory / f"pareto-{name}.csv"
        write_csv_atomic(table, front_frame(found))
        paths.append(table)
        for first, second in combinations(range(len(found.objectives)), 2):
            pair = projected(found, first, second)
            stem = f"pareto-{name}"
            if len(found.objectives) > 2:
                stem += f"-{first + 1}{second + 1}"
            figure = objectives_figure(pair, title_of(found), labels_of(found))
            paths += save_figure(figure, directory, stem)
    write_csv_atomic(directory / "pareto-shift.csv", pd.concat(shifts))
    return [*paths, directory / "pareto-shift.csv"]


def projected(found: Frontiers, first: int, second: int) -> Frontiers:
    """Two of the objectives, with the frontier of all."""
    return Frontiers(
        found.frame,
        found.groups,
        (found.objectives[first], found.objectives[second]),
        found.values[:, [first, second]],
        found.on_group,
        found.on_joint,
    )


def varied_keys(frame: pd.DataFrame) -> tuple[str, ...]:
    """The varied keys of a points table, without the seed."""
    # they stand before the first key of result.json
    columns = list(frame.columns)
    first, last = columns.index("error") + 1, columns.index("label")
    return tuple(name for name in columns[first:last] if name != "seed")


def labels_of(found: Frontiers) -> list[str]:
    """The settings of each point that differ inside its group, short."""
    frame = found.frame
    keys = [
        key
        for key in varied_keys(frame)
        if (frame.groupby(found.groups)[key].nunique() > 1).any()
    ]
    rows = [
        ", ".join(
            f"{row[key]:g}" if isinstance(row[key], float) else str(row[key])
            for key in keys
            if _differs(found, key, i)
        )
        for i, (_, row) in enumerate(frame.iterrows())
    ]
    return [row if len(row) <= _LONGEST_LABEL else "" for row in rows]


def title_of(found: Frontiers) -> str:
    """What was simulated, as far as all points share it."""
    frame = found.frame
    shared = [
        str(frame[name].iloc[0])
        for name in ("model_id", "gpu", "dataset", "profile")
        if name in frame and frame[name].nunique() == 1
    ]
    return ", ".join(shared)


def _differs(found: Frontiers, key: str, row: int) -> bool:
    group = found.groups == found.groups[row]
    return bool(found.frame.loc[group, key].nunique() > 1)
