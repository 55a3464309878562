"""Charts of the what-if page: the same figures, their data replaced by each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import pandas as pd
from bokeh.models import ColumnDataSource, Div, PanTool, Range1d

from reports.html.charts.base import Figure, hover, looks, new_chart
from reports.html.charts.distributions import curve
from reports.html.charts.timeline import box_columns, first_prefill_s
from reports.html.quantities import QUANTITIES

# Column of the requests, label, and milliseconds in its unit.
_CURVES: Final = (
    ("ttft_ms", "TTFT (s)", 1e3),
    ("e2el_ms", "E2E latency (s)", 1e3),
    ("max_itl_ms", "worst TBT of a request (ms)", 1.0),
)
_VIEW_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class LiveRun:
    """What a page shows of one policy: tables as a run writes them."""

    summary: Mapping[str, Any]
    requests: pd.DataFrame
    steps: pd.DataFrame


class LiveView:
    """Charts and a table of policies side by side.

    Attributes:
        table: The numbers.
        curves: Distributions of the latencies.
        timelines: Layers against time, a chart per policy.
    """

    def __init__(self, policies: Sequence[str]) -> None:
        self._styles = looks(policies)
        self._time = Range1d(0, _VIEW_S)
        self._layers = Range1d(1, 0)
        self._curves: dict[tuple[str, str], ColumnDataSource] = {}
        self._boxes = {name: ColumnDataSource(_no_boxes()) for name in self._styles}
        self.table = Div(sizing_mode="stretch_width", name="numbers")
        self.curves = [self._curve_chart(column, label) for column, label, _ in _CURVES]
        self.timelines = [self._timeline(name) for name in self._styles]

    def show(self, runs: Mapping[str, LiveRun]) -> None:
        """Replace everything by these runs."""
        for name, run in runs.items():
            for column, _, ms in _CURVES:
                x, y = curve(run.requests[column].dropna().to_numpy() / ms)
                self._curves[name, column].data = {"x": x, "y": y}
            boxes = box_columns(run.steps, self._styles[name].color)
            self._boxes[name].data = {key: v.to_numpy() for key, v in boxes.items()}
        steps = pd.concat([run.steps for run in runs.values()])
        if len(steps):
            start_s = first_prefill_s([steps])
            self._time.update(start=start_s, end=start_s + _VIEW_S)
            self._layers.start = int(steps["last_layer"].max())
        self.table.text = _table(runs)

    def _curve_chart(self, column: str, label: str) -> Figure:
        chart = new_chart(
            f"live-{column}", label, "requests at or below (%)", y_range=(0, 102)
        )
        lines = []
        for name, style in self._styles.items():
            source = self._curves[name, column] = ColumnDataSource({"x": [], "y": []})
            lines.append(
                chart.line(
                    "x",
                    "y",
                    source=source,
                    color=style.color,
                    line_width=2,
                    legend_label=style.label,
                )
            )
        chart.legend.location = "bottom_right"
        chart.add_tools(hover(lines, [(label, "@x{0.000}"), ("share", "@y{0} %")]))
        return chart

    def _timeline(self, name: str) -> Figure:
        chart = new_chart(
            f"live-timeline-{name}",
            f"simulated time (s), {self._styles[name].label}",
            "layer",
            height=180,
            drag=PanTool(dimensions="width"),
            x_range=self._time,
            y_range=self._layers,
        )
        boxes = chart.quad(
            left="left",
            right="right",
            top="top",
            bottom="bottom",
            fill_color="color",
            line_color="white",
            line_width=0.5,
            source=self._boxes[name],
        )
        tips = [
            ("layers", "@top to @bottom"),
            ("prompt tokens", "@prefill"),
            ("decode tokens", "@decode"),
            ("iteration", "@ms{0.00} ms"),
        ]
        chart.add_tools(hover([boxes], tips))
        return chart


def _no_boxes() -> dict[str, list[float]]:
    names = ("left", "right", "top", "bottom", "color", "ms", "prefill", "decode")
    return {name: [] for name in (*names, "experts_ms", "attention_ms")}


def _table(runs: Mapping[str, LiveRun]) -> str:
    """The numbers as an HTML table; names are escaped."""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in runs)
    rows = [
        f'<tr><th scope="row" style="text-align:left">{escape(quantity.label)}</th>'
        + "".join(
            f'<td data-key="{quantity.key}" data-policy="{escape(name)}"'
            f' style="text-align:right">{quantity.text(dict(run.summary))}</td>'
            for name, run in runs.items()
        )
        + "</tr>"
        for quantity in QUANTITIES.values()
    ]
    return (
        '<table style="border-spacing:1em .2em"><thead><tr><td></td>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
