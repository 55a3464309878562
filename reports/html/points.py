"""What a page of many points is about: a sweep or a capacity study, checked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from reports.frame import read_table
from reports.html.charts.explorer import AXES, Axes, Point
from reports.html.study import check_summary, flat
from reports.html.tables import Cell, Table
from sim.config_errors import one_line
from sim.errors import ConfigError

POINTS_FILE: Final = "points.csv"
EVALUATIONS_FILE: Final = "evaluations.csv"
CAPACITY_FILE: Final = "capacity.csv"
_OK: Final = "ok"
_MOST_FAILED: Final = 20


@dataclass(frozen=True, slots=True)
class Points:
    """Configurations with their results.

    Attributes:
        title: Their directory.
        points: Those with a result; keys that never differ are not in their config.
        failed: What went wrong, a line each.
        axes: What the charts show first: keys of ``result.json`` or of the
            configuration.
        answers: Tables that a capacity study has found, each with its caption.
    """

    title: str
    points: tuple[Point, ...]
    failed: tuple[str, ...]
    axes: Axes
    answers: tuple[tuple[str, Table], ...] = ()


def is_points(directory: Path) -> bool:
    """Whether a directory is that of a sweep or a capacity study."""
    files = (POINTS_FILE, EVALUATIONS_FILE)
    return any((directory / file).exists() for file in files)


def read_points(directory: Path) -> Points:
    """Read what ``servescope sweep`` or ``servescope capacity`` wrote.

    Raises:
        ConfigError: If a file is malformed, or no point has a result.
    """
    sweep = (directory / POINTS_FILE).exists()
    points = _sweep(directory) if sweep else _capacity(directory)
    if not points.points:
        raise ConfigError(f"{one_line(str(directory))}: no point has a result")
    return points


def _sweep(directory: Path) -> Points:
    path = directory / POINTS_FILE
    frame = read_table(path)
    if missing := [c for c in ("key", "status", "error", "label") if c not in frame]:
        raise ConfigError(f"{path}: missing column(s) {', '.join(missing)}")
    columns = [str(column) for column in frame]
    varied = columns[columns.index("error") + 1 : columns.index("label")]
    rows = [_known(row) for row in frame.to_dict("records")]
    failed = [row for row in rows if row["status"] != _OK]
    lines = [_failure(row, varied) for row in failed[:_MOST_FAILED]]
    if len(failed) > _MOST_FAILED:
        lines.append(f"and {len(failed) - _MOST_FAILED} more")
    points = [
        Point({key: row[key] for key in varied}, check_summary(row, path))
        for row in rows
        if row["status"] == _OK
    ]
    title = directory.resolve().name
    return Points(title, tuple(points), tuple(lines), AXES)


def _failure(row: dict[str, Any], varied: Sequence[str]) -> str:
    where = ", ".join(f"{key} = {row[key]}" for key in varied)
    return f"{where}: {row['error']}"


def _known(row: dict[Any, Any]) -> dict[str, Any]:
    """A row of a table; an empty field is None."""
    return {
        str(key): None if isinstance(value, float) and math.isnan(value) else value
        for key, value in row.items()
    }


def _capacity(directory: Path) -> Points:
    frame = read_table(directory / EVALUATIONS_FILE)
    if "key" not in frame:
        raise ConfigError(f"{directory / EVALUATIONS_FILE}: missing column(s) key")
    points = [point for key in frame["key"] for point in _stored(directory, str(key))]
    answers = [("Every run of the search", _plain_table(frame.drop(columns="key")))]
    if (directory / CAPACITY_FILE).exists():
        capacity = read_table(directory / CAPACITY_FILE)
        answers.insert(0, ("Highest rate by seed", _plain_table(capacity)))
    searched = "parallel.replicas" if "replicas" in frame else "workload.request_rate"
    return Points(
        directory.resolve().name,
        tuple(points),
        (),
        ((searched, "slo_attainment"), (searched, "p99_ttft_ms")),
        tuple(answers),
    )


def _stored(directory: Path, key: str) -> Iterator[Point]:
    """The point of a key; nothing where it failed."""
    path = directory / "points" / Path(key).name / "point.json"
    try:
        document = json.loads(path.read_text("utf-8"))
        summary, config = document["summary"], document["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path}: cannot be read: {one_line(str(reason))}") from None
    if summary is not None:
        yield Point(dict(flat(config)), check_summary(summary, path))


def _plain_table(frame: pd.DataFrame) -> Table:
    """A frame as it is, numbers to six significant digits."""
    rows = [
        [Cell(f"{v:.6g}" if isinstance(v, float) else str(v)) for v in row]
        for row in frame.itertuples(index=False, name=None)
    ]
    return Table([str(column) for column in frame], rows)
