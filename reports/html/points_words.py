"""The words of a page of many points: the best of each quantity, failures, trust."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from reports.html.accuracy import Accuracy, accuracy_of
from reports.html.charts.base import looks
from reports.html.charts.explorer import Point, text_of
from reports.html.digest import measured_lines, what_if_lines
from reports.html.points import Points
from reports.html.quantities import HEADLINES, QUANTITIES, Quantity
from reports.html.tables import PROVENANCE, Cell, Table, accuracy_table, plain_text
from reports.html.words import legend_entry

_REGIME: Final = ("profile", "model_id", "gpu")
_MOST_VALUES: Final = 8


@dataclass(frozen=True, slots=True)
class Best:
    """The best value of a quantity, and the configuration that has it."""

    quantity: Quantity
    value: str
    where: str
    run: str


def points_text(points: Points) -> dict[str, Any]:
    """Words and tables of many points, for the template."""
    first = points.points[0].summary
    styles = looks(str(point.summary["scheduler"]) for point in points.points)
    accuracy = _accuracy(points.points)
    shares = [p.summary.get("extrapolated_fraction") or 0.0 for p in points.points]
    lines = ["These are single simulated loads: small differences may be chance."]
    if accuracy is None:
        lines.append(
            "The points differ in engine, model or GPU: report one of them at a time to"
            " see how far off it may be."
        )
    else:
        lines += measured_lines(accuracy)
    lines.append(
        f"Up to {100 * max(shares):.1f} % of the simulated time of a point lies outside"
        " profiled kernel timings."
    )
    return {
        "title": points.title,
        "subtitle": f"{len(points.points)} configurations (servescope"
        f" {first['version']})",
        "legend": [legend_entry(style) for style in styles.values()],
        "loads": [],
        "headline": "",
        "views": [],
        "warnings": [
            *(f"failed: {line}" for line in points.failed),
            *what_if_lines(
                (str(p.summary["scheduler"]), p.summary.get("what_if"))
                for p in points.points
            ),
        ],
        "bests": [] if points.answers else best_points(points.points),
        "answers": points.answers,
        "accuracy_lines": lines,
        "accuracy_table": None if accuracy is None else accuracy_table(accuracy),
        "likeness": "" if accuracy is None else accuracy.likeness,
        "gains_table": None,
        "provenance_table": _provenance(points.points),
        "configurations": [],
        "runs_table": None,
        "paired_table": None,
        "parts_table": None,
        "baseline_label": "",
        "timeline_note": "",
    }


def best_points(points: Sequence[Point]) -> list[Best]:
    """The best point of every headline quantity; the first of equal ones."""
    found = []
    for quantity in (QUANTITIES[key] for key in HEADLINES):
        known = [
            point for point in points if math.isfinite(quantity.value(point.summary))
        ]
        if not known:
            continue
        sign = 1 if quantity.less else -1
        best = min(known, key=lambda p, q=quantity, s=sign: s * q.value(p.summary))  # type: ignore[misc]
        where = ", ".join(
            f"{key} = {text_of(value)}" for key, value in _differing(best, points)
        )
        run = str(best.summary["config_sha256"])
        found.append(Best(quantity, quantity.text(best.summary), where, run))
    return found


def _differing(point: Point, points: Sequence[Point]) -> list[tuple[str, Any]]:
    """Keys of a point in which the points differ."""
    return [
        (key, value)
        for key, value in point.config.items()
        if any(other.config.get(key) != value for other in points)
    ]


def _accuracy(points: Sequence[Point]) -> Accuracy | None:
    """Measured errors, if all points are of one engine, model and GPU."""
    regimes = {tuple(point.summary[key] for key in _REGIME) for point in points}
    return accuracy_of(points[0].summary) if len(regimes) == 1 else None


def _provenance(points: Sequence[Point]) -> Table:
    rows = []
    for key in PROVENANCE:
        values = dict.fromkeys(plain_text(p.summary.get(key)) for p in points)
        shown = list(values)[:_MOST_VALUES]
        more = (
            f" and {len(values) - len(shown)} more" if len(values) > len(shown) else ""
        )
        rows.append([Cell(key), Cell(", ".join(shown) + more)])
    return Table(["key", "values"], rows, 2)
