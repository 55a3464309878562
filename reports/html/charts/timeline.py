"""Charts: which layers run prefill when, and where an iteration's time goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
from bokeh.models import ColumnDataSource, FactorRange, PanTool, Range1d

from reports.html.charts.base import Figure, hover, looks, new_chart, of_load
from reports.html.study import Run, Study
from reports.style import (
    BLUE,
    BLUISH_GREEN,
    DARK_GREY,
    GREY,
    LIGHT_GREY,
    MIDDLE_GREY,
    ORANGE,
    REDDISH_PURPLE,
    SKY_BLUE,
    VERMILLION,
    YELLOW,
)
from sim.step_parts import PARTS

_NS_PER_S: Final = 1e9
_NS_PER_MS: Final = 1e6
_FIRST_VIEW_S: Final = 1.5
_DECODE: Final = MIDDLE_GREY
# Part of an iteration, name and colour.
KERNELS: Final = {
    "experts": ("experts (MoE or dense FFN)", ORANGE),
    "linear": ("projections and router", SKY_BLUE),
    "prefill_attention": ("prefill attention", VERMILLION),
    "decode_attention": ("decode attention", BLUE),
    "all_reduce": ("collectives in layers", REDDISH_PURPLE),
    "elementwise": ("norms and rotary embedding", YELLOW),
    "head": ("embedding, LM head, sampling", BLUISH_GREEN),
    "head_collectives": ("collectives around layers", LIGHT_GREY),
    "engine": ("untabled engine time", MIDDLE_GREY),
    "host": ("host overhead", GREY),
}
_KINDS: Final = {False: "decode only", True: "with prefill"}


def timeline_charts(study: Study, runs: Sequence[Run]) -> dict[str, Figure]:
    """Layers against time, a chart per policy on one time axis.

    A box is a layer span of an iteration; its colour says whether prompts ran in it.
    """
    steps = [(run, _steps(run)) for run in runs]
    known = [(run, frame) for run, frame in steps if frame is not None]
    if not known:
        return {}
    first_s = min(frame["start_ns"].min() for _, frame in known) / _NS_PER_S
    shown_s = first_prefill_s([frame for _, frame in known])
    last_s = max(frame["end_ns"].max() for _, frame in known) / _NS_PER_S
    view = Range1d(
        shown_s, min(shown_s + _FIRST_VIEW_S, last_s), bounds=(first_s, last_s)
    )
    layers = max(frame["last_layer"].max() for _, frame in known)
    return {
        name: _timeline(
            name,
            [pair for pair in known if pair[0].name == name],
            view,
            int(layers),
            study,
        )
        for name in study.policies
        if any(run.name == name for run, _ in known)
    }


def _timeline(
    name: str,
    runs: Sequence[tuple[Run, pd.DataFrame]],
    view: Range1d,
    layers: int,
    study: Study,
) -> Figure:
    style = looks(study.policies)[name]
    chart = new_chart(
        f"timeline-{name}",
        "simulated time (s)",
        "layer",
        height=220,
        drag=PanTool(dimensions="width"),
        x_range=view,
        y_range=Range1d(layers, 0),
    )
    boxes = []
    for run, frame in runs:
        source = ColumnDataSource(box_columns(frame, style.color))
        box = chart.quad(
            left="left",
            right="right",
            top="top",
            bottom="bottom",
            fill_color="color",
            line_color="white",
            line_width=0.5,
            source=source,
        )
        boxes.append(of_load(box, run.load))
    tips = [
        ("layers", "@top to @bottom"),
        ("prompt tokens", "@prefill"),
        ("decode tokens", "@decode"),
        ("iteration", "@ms{0.00} ms"),
        ("experts in these layers", "@experts_ms{0.00} ms"),
        ("attention in these layers", "@attention_ms{0.00} ms"),
    ]
    chart.add_tools(hover(boxes, tips))
    return chart


def first_prefill_s(frames: Sequence[pd.DataFrame]) -> float:
    """When the first prompt runs under any policy: where a look is worth most."""
    steps = pd.concat(frames)
    prefills = steps[steps["prefill_tokens"] > 0]
    return float((steps if prefills.empty else prefills)["start_ns"].min()) / _NS_PER_S


def box_columns(frame: pd.DataFrame, color: str) -> dict[str, pd.Series]:
    """The boxes of the first replica, from its ``steps.csv.gz``."""
    first = frame[frame["replica"] == 0]
    prefill = first["prefill_tokens"] > 0
    attention_ns = first["prefill_attention_ns"] + first["decode_attention_ns"]
    return {
        "left": first["start_ns"] / _NS_PER_S,
        "right": first["end_ns"] / _NS_PER_S,
        "top": first["first_layer"],
        "bottom": first["last_layer"],
        "color": prefill.map({True: color, False: _DECODE}),
        "ms": (first["end_ns"] - first["start_ns"]) / _NS_PER_MS,
        "prefill": first["prefill_tokens"],
        "decode": first["decode_tokens"],
        "experts_ms": first["experts_ns"] / _NS_PER_MS,
        "attention_ms": attention_ns / _NS_PER_MS,
    }


def breakdown_table(run: Run) -> pd.DataFrame | None:
    """Mean ms of every part, a row per kind of iteration, with how many there were."""
    frame = _steps(run)
    if frame is None:
        return None
    times = [f"{part}_ns" for part in PARTS]
    steps = frame.groupby(["replica", "iteration"])
    kind = (steps["prefill_tokens"].sum() > 0).map(_KINDS).rename("kind")
    means = steps[times].sum().groupby(kind).mean() / _NS_PER_MS
    means.columns = pd.Index(PARTS)
    table = means.assign(iterations=kind.value_counts()).reindex(list(_KINDS.values()))
    return table.dropna(subset=["iterations"])


def breakdown_chart(study: Study, runs: Sequence[Run]) -> Figure | None:
    """A bar per policy and kind of iteration, stacked by kernel; bars carry loads."""
    tables = [(run, breakdown_table(run)) for run in runs]
    known = [(run, table) for run, table in tables if table is not None]
    if not known:
        return None
    factors = [
        (kind, looks(study.policies)[name].label)
        for kind in _KINDS.values()
        for name in study.policies
    ]
    chart = new_chart(
        "breakdown",
        "mean time of an iteration (ms)",
        "",
        height=60 + 44 * len(factors),
        y_range=FactorRange(*reversed(factors)),
    )
    bars = [
        of_load(
            chart.hbar(
                y="bar",
                left="left",
                right="right",
                height=0.8,
                fill_color="color",
                line_color=DARK_GREY,
                line_width=0.5,
                source=ColumnDataSource(
                    _pieces(table, looks(study.policies)[run.name].label)
                ),
            ),
            run.load,
        )
        for run, table in known
    ]
    tips = [("", "@bar"), ("part", "@part"), ("", "@ms{0.00} ms, @share{0.0} %")]
    chart.add_tools(hover(bars, tips))
    chart.x_range.start = 0
    chart.x_range.only_visible = True
    chart.ygrid.grid_line_color = None
    return chart


def _pieces(table: pd.DataFrame, label: str) -> dict[str, list[Any]]:
    """The pieces of every bar, from left to right."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("bar", "left", "right", "color", "part", "ms", "share")
    }
    for kind, row in table.iterrows():
        left, total = 0.0, float(row[list(KERNELS)].sum())
        for part, (title, color) in KERNELS.items():
            ms = float(row[part])
            values = (
                (kind, label),
                left,
                left + ms,
                color,
                title,
                ms,
                100 * ms / total,
            )
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
            left += ms
    return columns


def _steps(run: Run) -> pd.DataFrame | None:
    frame = run.table("steps.csv.gz")
    return None if frame is None or frame.empty else frame
