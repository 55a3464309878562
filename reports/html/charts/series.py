"""Charts: power, queue and KV cache over simulated time, of one load at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bokeh.models import ColumnDataSource, PanTool, Range1d

from reports.html.charts.base import (
    Figure,
    hover,
    looks,
    new_chart,
    of_load,
    start_at_zero,
)
from reports.html.study import Run, Study

# Column of timeseries.csv.gz, label and factor.
_COLUMNS: Final = (
    ("power_w", "power, all GPUs (W)", 1.0),
    ("running", "running requests", 1.0),
    ("waiting", "waiting requests", 1.0),
    ("kv_cache_usage_perc", "KV cache in use (%)", 100.0),
)


def series_charts(study: Study, runs: Sequence[Run]) -> dict[str, Figure]:
    """One chart per quantity on a shared time axis; lines carry their load."""
    frames = [(run, run.table("timeseries.csv.gz")) for run in runs]
    known = [(run, frame) for run, frame in frames if frame is not None]
    if not known or all(frame.empty for _, frame in known):
        return {}
    end_s = max(float(run.summary["duration"]) for run, _ in known)
    time = Range1d(0, end_s)
    charts = {}
    styles = looks(study.policies)
    for column, label, factor in _COLUMNS:
        chart = new_chart(
            f"series-{column}",
            "time (s)",
            label,
            height=220,
            drag=PanTool(dimensions="width"),
            x_range=time,
        )
        chart.y_range.only_visible = True
        lines = []
        for run, frame in known:
            style = styles[run.name]
            source = ColumnDataSource(
                {
                    "time": frame["time_s"].to_numpy(),
                    "value": factor * frame[column].to_numpy(),
                    "policy": [style.label] * len(frame),
                }
            )
            line = chart.step(
                "time",
                "value",
                source=source,
                mode="after",
                color=style.color,
                line_width=1.5,
            )
            lines.append(of_load(line, run.load))
        tips = [("policy", "@policy"), ("time", "@time s"), (label, "@value{0.0}")]
        chart.add_tools(hover(lines, tips))
        start_at_zero(chart)
        charts[column] = chart
    return charts
