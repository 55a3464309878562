"""Figures of a calibration: where profiled points lie, how well they interpolate.

They read frames as `servescope calibrate show` writes them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from reports.figures.axes import shared_legend
from reports.style import (
    BLACK,
    BLUE,
    BLUISH_GREEN,
    DARK_GREY,
    ORANGE,
    REDDISH_PURPLE,
    SKY_BLUE,
    VERMILLION,
    YELLOW,
    new_figure,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS: Final = (
    BLUE,
    VERMILLION,
    BLUISH_GREEN,
    REDDISH_PURPLE,
    ORANGE,
    SKY_BLUE,
    BLACK,
    YELLOW,
)
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
_KEY_LABELS: Final = {
    "isl": "Prompt length (tokens)",
    "step": "Past KV length (tokens)",
    "batch_size": "Batch size",
    "num_tokens": "Tokens",
    "moe_tp_size x moe_ep_size": "Split (TP x EP)",
    "message_size": "Message (bytes)",
    "num_gpus": "GPUs",
    "n": "Output width n",
    "k": "Depth k",
}
_COLUMNS: Final = 2  # panels side by side
_FAMILY_IN: Final = 0.3  # height of one line of the error chart
_MARKER_AREA: Final = 12.0  # points squared
_TITLE_COLUMNS: Final = 42  # letters of a title that fit half a page
_PERCENT_TICKS: Final = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500)


@paper_style()
def coverage_figure(points: pd.DataFrame, table: str) -> Figure:
    """Draw where the profiled points of one kernel table lie.

    One panel for all GPUs and frameworks that were profiled at the same points. How
    many rows (shapes, formats) share a point is in the frame, not in the figure.

    Args:
        points: A frame of `calibration.coverage_map.profiled_points`, of any GPUs.
        table: Which table of theirs to draw.

    Returns:
        The figure, not yet saved.
    """
    chosen = points[points["table"] == table]
    panels = _alike(chosen)
    lines = -(-len(panels) // _COLUMNS)
    levels = _levels(chosen)
    height = 0.9 + lines * max(2.1, 0.8 + 0.12 * len(levels))
    figure = new_figure(height, f"Profiled points: {table.replace('_', ' ')}")
    columns = min(len(panels), _COLUMNS)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (title, rows) in zip(grid.flat, panels.items(), strict=False):
        _scatter(axes, rows, levels)
        axes.set_title(title)
    for axes in grid.flat[max(len(panels) - columns, 0) :]:
        axes.tick_params(axis="x", labelbottom=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    first = chosen.iloc[0]
    x_key, y_key = str(first["x_key"]), str(first["y_key"])
    figure.supxlabel(_KEY_LABELS.get(x_key, x_key), fontsize=8.5)
    figure.supylabel(_KEY_LABELS.get(y_key, y_key), fontsize=8.5)
    return figure


@paper_style()
def error_figure(errors: pd.DataFrame) -> Figure:
    """Draw leave-one-out errors by kernel family and GPU.

    A marker is the mean absolute error; the line beside it ends at the 90th
    percentile. Both are of points left out of the table that is interpolated.

    Args:
        errors: A frame of `calibration.leave_one_out.leave_one_out`, of any GPUs and
            one framework.

    Returns:
        The figure, not yet saved.
    """
    gpus = list(dict.fromkeys(errors["gpu"]))
    labels = [
        f"{table.replace('_', ' ')}, {variant} ({axis})"
        for table, axis, variant in zip(
            errors["table"], errors["axis"], errors["variant"], strict=True
        )
    ]
    families = sorted(set(labels))
    height = 1.3 + _FAMILY_IN * len(families)
    figure = new_figure(
        height, "Leave-one-out error of interpolation: mean absolute, line to p90"
    )
    axes = figure.add_subplot()
    for turn, gpu in enumerate(gpus):
        own = (errors["gpu"] == gpu).to_numpy()
        y = np.array([families.index(label) for label in labels])[own]
        y = y + 0.7 * ((turn + 0.5) / len(gpus) - 0.5)
        _draw(axes, errors[own], y, turn, gpu)
    _error_axes(axes, families)
    shared_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, y: np.ndarray, turn: int, gpu: str) -> None:
    """One GPU: a marker and a line for each family it has."""
    color = _COLORS[turn % len(_COLORS)]
    mape, p90 = (100 * rows[c].to_numpy(dtype=np.float64) for c in ("mape", "p90"))
    axes.hlines(y, mape, np.maximum(mape, p90), color=color, linewidth=1.0)
    marker = _MARKERS[turn % len(_MARKERS)]
    axes.plot(mape, y, marker, color=color, markersize=3.5, label=gpu)


def _error_axes(axes: Axes, families: Sequence[str]) -> None:
    from matplotlib.ticker import NullFormatter  # noqa: PLC0415  (lazy, see style)

    axes.set(xscale="log", xlabel="Relative error (%)")
    low, high = axes.get_xlim()
    ticks = [tick for tick in _PERCENT_TICKS if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(families)), families)
    axes.set_ylim(len(families) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    for edge in range(1, len(families)):
        axes.axhline(edge - 0.5, color=DARK_GREY, linewidth=0.2)


def _alike(points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """One frame for all that were profiled at the same points, under their names."""
    found: dict[tuple[tuple[float, str], ...], dict[str, list[str]]] = {}
    shown: dict[tuple[tuple[float, str], ...], pd.DataFrame] = {}
    for (framework, gpu), rows in points.groupby(["framework", "gpu"], sort=False):
        places = tuple(zip(rows["x"], rows["y"], strict=True))
        found.setdefault(places, {}).setdefault(str(framework), []).append(str(gpu))
        shown.setdefault(places, rows)
    return {_title(owners): shown[places] for places, owners in found.items()}


def _title(owners: dict[str, list[str]]) -> str:
    """A line or more per framework with its GPUs."""
    lines = (f"{framework}: {', '.join(gpus)}" for framework, gpus in owners.items())
    return "\n".join(textwrap.fill(line, _TITLE_COLUMNS) for line in lines)


def _levels(points: pd.DataFrame) -> list[str]:
    """Every y value once, in numerical order."""
    names = set(points["y"])
    return sorted(names, key=lambda y: [int(part) for part in str(y).split(" x ")])


def _scatter(axes: Axes, rows: pd.DataFrame, levels: list[str]) -> None:
    y = [levels.index(value) for value in rows["y"]]
    axes.scatter(rows["x"], y, s=_MARKER_AREA, color=BLUE, linewidths=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(_binary)
    axes.set_yticks(range(len(levels)), levels)
    axes.set_ylim(-0.7, len(levels) - 0.3)


def _binary(value: float, _position: float | None = None) -> str:
    """1024 as "1 Ki", 1048576 as "1 Mi"; smaller numbers as they are."""
    for size, unit in ((2**30, " Gi"), (2**20, " Mi"), (2**10, " Ki")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
