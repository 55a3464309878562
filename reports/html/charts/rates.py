"""Charts: latency, SLO attainment and cost against the request rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from bokeh.models import ColumnDataSource

from reports.html.charts.base import (
    Figure,
    hover,
    limit_line,
    looks,
    marker,
    new_chart,
    scale_of,
    start_at_zero,
)
from reports.html.quantities import QUANTITIES, Quantity
from reports.html.study import Run, Study

# Quantity, and the SLO that limits it for every request.
_AGAINST_RATE: Final = (
    ("mean_ttft_ms", "slo_ttft_ms"),
    ("p99_itl_ms", "slo_itl_ms"),
    ("mean_e2el_ms", "slo_e2el_ms"),
    ("slo_attainment", None),
    ("energy_per_token_j", None),
    ("request_goodput", None),
)
_LEVEL_PERCENT: Final = 90.0  # as in reports.figures.latency


def rate_charts(study: Study) -> dict[str, Figure]:
    """Charts against the rate by key; none where fewer than two rates are finite."""
    runs = [run for run in study.compared if math.isfinite(rate_of(run))]
    if len({rate_of(run) for run in runs}) < 2:
        return {}
    return {
        key: _chart(QUANTITIES[key], limit, runs, study.policies)
        for key, limit in _AGAINST_RATE
        if any(math.isfinite(QUANTITIES[key].value(run.summary)) for run in runs)
    }


def rate_of(run: Run) -> float:
    """Offered rate in req/s; NaN where it has none, infinite when all at once."""
    rate = run.summary["request_rate"]
    return math.nan if rate is None else float(rate)


def _chart(
    quantity: Quantity, limit: str | None, runs: Sequence[Run], names: Sequence[str]
) -> Figure:
    values = [quantity.value(run.summary) for run in runs]
    scale = "linear" if quantity.unit == "%" else scale_of(values)
    chart = new_chart(
        f"rate-{quantity.key}",
        "request rate (req/s)",
        quantity.label,
        y_axis_type=scale,
    )
    points = []
    for name, style in looks(names).items():
        mine = sorted((r for r in runs if r.name == name), key=rate_of)
        source = ColumnDataSource(
            {
                "rate": [rate_of(run) for run in mine],
                "value": [quantity.value(run.summary) for run in mine],
                "text": [quantity.text(run.summary) for run in mine],
                "policy": [style.label] * len(mine),
            }
        )
        chart.line("rate", "value", source=source, color=style.color, line_width=2)
        points.append(
            chart.scatter(
                "rate",
                "value",
                source=source,
                color=style.color,
                marker=marker(style),
                size=9,
            )
        )
    unit = f" {quantity.unit}"
    tips = [("policy", "@policy"), ("rate", "@rate req/s"), ("", f"@text{unit}")]
    chart.add_tools(hover(points, [*tips[:2], (quantity.title, tips[2][1])]))
    if limit is not None and runs[0].summary.get(limit) is not None:
        limit_line(chart, float(runs[0].summary[limit]) * quantity.factor)
    if quantity.key == "slo_attainment":
        limit_line(chart, _LEVEL_PERCENT)
    if scale == "linear":
        start_at_zero(chart)
    return chart
