"""Measured against predicted, log-log, one panel a group of metrics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import pandas as pd

from reports.style import (
    BLACK,
    BLUE,
    BLUISH_GREEN,
    DARK_GREY,
    GREY,
    LIGHT_GREY,
    MIDDLE_GREY,
    ORANGE,
    VERMILLION,
    new_figure,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS: Final = 3
_PANEL_HEIGHT_IN: Final = 2.35
_LEGEND_HEIGHT_IN: Final = 0.75
_BANDS: Final = ((0.25, LIGHT_GREY), (0.10, MIDDLE_GREY))
_GPU_COLORS: Final = (BLUE, VERMILLION, BLUISH_GREEN, ORANGE, BLACK)
_WIDE_SPAN: Final = 50.0
_NARROW_SPAN: Final = 4.0
_MARGIN: Final = 1.3  # factor left free beyond the outermost points


@paper_style()
def parity_figure(cases: pd.DataFrame) -> Figure:
    """Draw every predicted number against its measurement.

    The groups about TTFT share a panel. Filled markers are validation, hollow ones
    calibration; colours are GPUs; the bands are +-10 % and +-25 %.

    Args:
        cases: A checked table of cases, see `reports.validation.read_cases`.
    """
    known = cases[cases["predicted"] > 0]
    panel = known["group"] + " (" + known["unit"] + ")"
    panel = panel.str.replace(" overloaded", "", regex=False)
    names = list(dict.fromkeys(panel.sort_values()))
    rows = math.ceil(len(names) / _COLUMNS)
    height_in = rows * _PANEL_HEIGHT_IN + _LEGEND_HEIGHT_IN
    figure = new_figure(height_in, "Predicted against measured; bands of 10 and 25 %")
    colors = dict(zip(sorted(cases["gpu"].unique()), _GPU_COLORS, strict=False))
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis, name in zip(axes, names, strict=False):
        _panel(axis, known[panel == name], name, colors)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis in axes[::_COLUMNS]:
        axis.set_ylabel("predicted")
    _legend(figure, axes[0], colors)
    return figure


def _panel(axis: Axes, part: pd.DataFrame, name: str, colors: dict[str, str]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator  # noqa: PLC0415

    low = part[["measured", "predicted"]].min().min() / _MARGIN
    high = part[["measured", "predicted"]].max().max() * _MARGIN
    ends = [low, high]
    for width, color in _BANDS:
        lower, upper = ([end * f for end in ends] for f in (1 - width, 1 + width))
        axis.fill_between(ends, lower, upper, color=color, linewidth=0)
    axis.plot(ends, ends, color=DARK_GREY, linewidth=0.8)
    for key, points in part.groupby(["gpu", "kind"]):
        gpu, kind = map(str, key)
        axis.scatter(
            points["measured"],
            points["predicted"],
            s=16,
            facecolors="none" if kind == "calibration" else colors.get(gpu, GREY),
            edgecolors=colors.get(gpu, GREY),
            linewidths=0.9,
            zorder=3,
        )
    axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends, title=name)
    axis.set(aspect="equal", xlabel="measured")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(LogLocator(subs=_subs(high / low)))
        side.set_major_formatter("{x:g}")
        side.set_minor_locator(NullLocator())


def _subs(span: float) -> tuple[int, ...]:
    """Ticks within a decade: few, so that their numbers do not touch."""
    if span > _WIDE_SPAN:
        return (1,)
    return (1, 2, 5) if span > _NARROW_SPAN else (1, 2, 3, 4, 6, 8)


def _legend(figure: Figure, axis: Axes, colors: dict[str, str]) -> None:
    """Handles drawn nowhere: one a GPU, two for calibration and validation."""
    handles = [
        axis.scatter([], [], s=16, color=color, label=gpu)
        for gpu, color in colors.items()
    ]
    for label, face in (("validation", DARK_GREY), ("calibration", "none")):
        handles.append(
            axis.scatter(
                [], [], s=16, facecolors=face, edgecolors=DARK_GREY, label=label
            )
        )
    columns = -(-len(handles) // 2)  # two rows: one would be wider than the figure
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
