"""Charts: what energy and HBM traffic are spent on, stacked by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bokeh.models import ColumnDataSource, FactorRange

from reports.frame import ENERGY_PARTS
from reports.html.charts.base import Figure, hover, new_chart, start_at_zero
from reports.html.study import Run
from reports.style import (
    BLUISH_GREEN,
    DARK_GREY,
    GREY,
    LIGHT_GREY,
    ORANGE,
    SKY_BLUE,
    YELLOW,
)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a stack: its key of ``result.json``, name and colour."""

    key: str
    title: str
    color: str


ENERGY: Final = tuple(
    Part(f"energy_{part}_j", title, color)
    for part, title, color in zip(
        ENERGY_PARTS,
        ("running", "waiting", "HBM", "arithmetic (FLOP)", "idle"),
        (SKY_BLUE, GREY, ORANGE, YELLOW, LIGHT_GREY),
        strict=True,
    )
)
TRAFFIC: Final = (
    Part("expert_weight_bytes", "expert weights", ORANGE),
    Part("other_weight_bytes", "other weights", SKY_BLUE),
    Part("kv_bytes", "KV cache", BLUISH_GREEN),
    Part("activation_bytes", "activations", YELLOW),
)


def stack_chart(
    name: str, label: str, parts: Sequence[Part], runs: Sequence[Run], factor: float
) -> Figure:
    """Bars of each load and policy, per prompt or output token.

    Args:
        name: Of the chart.
        label: Of the y axis.
        parts: From the bottom up.
        runs: A bar each.
        factor: From a part's unit per token to that of the axis.
    """
    factors = [(run.load, _short(run.name)) for run in runs]
    columns = {
        part.key: [
            factor * float(run.summary.get(part.key) or 0.0) / _tokens(run)
            for run in runs
        ]
        for part in parts
    }
    source = ColumnDataSource({"bar": factors, **columns})
    chart = new_chart(
        name, "", label, x_range=FactorRange(*factors, group_padding=0.6), height=340
    )
    bars = chart.vbar_stack(
        [part.key for part in parts],
        x="bar",
        width=0.9,
        source=source,
        color=[part.color for part in parts],
        line_color=DARK_GREY,
        line_width=0.5,
    )
    tips = [("", "@bar"), *((part.title, f"@{part.key}{{0.00}}") for part in parts)]
    chart.add_tools(hover(bars, tips))
    chart.xaxis.major_label_orientation = "vertical"
    chart.xaxis.group_label_orientation = "horizontal" if len(runs) <= 8 else 1.0
    chart.xgrid.grid_line_color = None
    start_at_zero(chart)
    return chart


def _short(name: str) -> str:
    return name.removesuffix("-prefill")


def _tokens(run: Run) -> float:
    served = run.summary["total_input_tokens"] + run.summary["total_output_tokens"]
    return float(served) or float("nan")
