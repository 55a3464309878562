"""Figure: a few quantities of a few things, as bars with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from reports.figures.axes import start_at_zero
from reports.style import BLUE, DARK_GREY, new_figure, paper_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT_IN: Final = 2.8
_HALF: Final = "_half_width"


@paper_style()
def bars_figure(
    table: pd.DataFrame, name: str, quantities: Sequence[tuple[str, str]], title: str
) -> Figure:
    """Draw one panel per quantity, one bar per row.

    Args:
        table: A row per thing; an interval's half width is in ``NAME_ci_high`` minus
            the value, or in a column that shares its first word and ends in
            ``_half_width``, where there is either.
        name: Column that names the things.
        quantities: (column, axis label with the unit) of each panel.
        title: Above the figure.

    Returns:
        The figure, not yet saved.
    """
    figure = new_figure(_HEIGHT_IN, title)
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    for axes, (column, label) in zip(panels, quantities, strict=True):
        values = table[column].to_numpy(dtype=np.float64)
        half = _half_widths(table, column)
        bars = axes.bar(
            table[name].tolist(), values, color=BLUE, width=0.6, yerr=half, capsize=3
        )
        axes.bar_label(bars, fmt="%.3g", padding=2, color=DARK_GREY)
        axes.set_ylabel(label)
        axes.grid(visible=False, axis="x")
        start_at_zero(axes, values + np.nan_to_num(half))
    return figure


def _half_widths(table: pd.DataFrame, column: str) -> np.ndarray:
    word = column.partition("_")[0]
    if f"{word}_ci_high" in table:
        return (table[f"{word}_ci_high"] - table[column]).to_numpy(dtype=np.float64)
    if f"{word}{_HALF}" in table:
        return table[f"{word}{_HALF}"].to_numpy(dtype=np.float64)
    return np.zeros(len(table))
