"""Figure: quantities against a factor, a panel per knob."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from reports.figures.axes import shared_legend
from reports.style import (
    BLUE,
    BLUISH_GREEN,
    DARK_GREY,
    VERMILLION,
    new_figure,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT_IN: Final = 3.2
_LOOKS: Final = ((BLUE, "o"), (VERMILLION, "s"), (BLUISH_GREEN, "^"))


@paper_style()
def lines_figure(
    table: pd.DataFrame,
    knob: str,
    factor: str,
    quantities: Mapping[str, str],
    title: str,
    x_label: str,
    y_label: str,
) -> Figure:
    """Draw the quantities of each knob against its factor, with a line at zero.

    Args:
        table: A row per knob and factor.
        knob: Column that names the knob; a panel each, with one y axis.
        factor: Column of the factor, drawn on a log scale.
        quantities: Legend text by column, at most three.
        title: Above the figure.
        x_label: Below each panel, after the knob's name.
        y_label: Left of the first panel.

    Returns:
        The figure, not yet saved.
    """
    names = list(dict.fromkeys(table[knob]))
    figure = new_figure(_HEIGHT_IN, title)
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, names, strict=True):
        rows = table[table[knob] == name]
        axes.axhline(0.0, color=DARK_GREY, linewidth=1.0)
        for (column, text), (color, marker) in zip(
            quantities.items(), _LOOKS, strict=False
        ):
            x, y = rows[factor].to_numpy(), rows[column].to_numpy(dtype=np.float64)
            axes.plot(x, y, color=color, marker=marker, label=text)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(rows[factor]), [f"{v:g}" for v in sorted(rows[factor])])
        axes.set_xlabel(f"{x_label} of {name}")
    panels[0].set_ylabel(y_label)
    shared_legend(figure, panels[0].get_legend_handles_labels()[0])
    return figure
