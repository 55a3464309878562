"""Charts: cumulative distributions of the latencies, of one load at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from bokeh.models import ColumnDataSource

from reports.html.charts.base import (
    Figure,
    hover,
    limit_line,
    looks,
    new_chart,
    of_load,
    scale_of,
)
from reports.html.study import Run, Study
from reports.style import PolicyStyle

_MOST_STEPS: Final = 200
_PERCENTILES: Final = (5, 10, 25, 50, 75, 90, 95, 99)
# Column of requests.csv.gz, what it is, its unit and milliseconds in it, its SLO.
_COLUMNS: Final = (
    ("ttft_ms", "TTFT", "s", 1e3, "slo_ttft_ms"),
    ("e2el_ms", "E2E latency", "s", 1e3, "slo_e2el_ms"),
    ("max_itl_ms", "worst TBT of a request", "ms", 1.0, "slo_itl_ms"),
)


def distribution_charts(study: Study, runs: Sequence[Run]) -> dict[str, Figure]:
    """One chart per latency; lines carry the load they belong to."""
    charts = {}
    styles = looks(study.policies)
    frames = [(run, run.table("requests.csv.gz")) for run in runs]
    for column, title, unit, ms, limit in _COLUMNS:
        lines = [
            (run, curve(frame[column].dropna().to_numpy() / ms))
            for run, frame in frames
            if frame is not None and frame[column].notna().any()
        ]
        if lines:
            charts[column] = _chart(column, f"{title} ({unit})", lines, styles)
            slo = study.compared[0].summary.get(limit)
            if slo is not None:
                limit_line(charts[column], slo / ms, "height")
    tokens = [(run, _token_curve(run)) for run in runs]
    charts["itl"] = _chart("itl", "TBT, all gaps between tokens (ms)", tokens, styles)
    return charts


Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def curve(values: npt.NDArray[np.float64]) -> Curve:
    """Values and the share of requests (%) at or below, thinned to even shares."""
    ordered = np.sort(values)
    shares = 100 * np.arange(1, ordered.size + 1) / ordered.size
    count = min(ordered.size, _MOST_STEPS)
    kept = np.unique(np.linspace(0, ordered.size - 1, count).round().astype(int))
    return ordered[kept], shares[kept]


def _token_curve(run: Run) -> Curve:
    """Percentiles of the gaps, which result.json keeps in place of the gaps."""
    known = [
        (run.summary[f"p{p}_itl_ms"], p)
        for p in _PERCENTILES
        if run.summary.get(f"p{p}_itl_ms") is not None
    ]
    table = np.array(known, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _chart(
    column: str,
    label: str,
    lines: Sequence[tuple[Run, Curve]],
    styles: Mapping[str, PolicyStyle],
) -> Figure:
    values = np.concatenate([curve[0] for _, curve in lines])
    chart = new_chart(
        f"cdf-{column}",
        label,
        "at or below (%)",
        x_axis_type=scale_of(values),
        y_range=(0, 102),
    )
    chart.x_range.only_visible = True
    drawn = []
    for run, (x, y) in lines:
        style = styles[run.name]
        source = ColumnDataSource({"x": x, "y": y, "policy": [style.label] * x.size})
        line = chart.line("x", "y", source=source, color=style.color, line_width=2)
        drawn.append(of_load(line, run.load))
        if column == "itl":
            dots = chart.scatter("x", "y", source=source, color=style.color, size=7)
            of_load(dots, run.load)
    tips = [("policy", "@policy"), (label, "@x{0.000}"), ("at or below", "@y{0.0} %")]
    chart.add_tools(hover(drawn, tips))
    return chart
