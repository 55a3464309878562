"""Charts: load of experts and of GPUs by layer, as heat-maps on one scale.

Colours are those of the figures on paper: white is balanced, red and blue are equally
far above and below, which the colour-blind tell apart too.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from bokeh.models import BasicTicker, LinearColorMapper
from bokeh.palettes import RdBu11, interp_palette

from reports.html.charts.base import Figure, hover, new_chart
from reports.html.placements import Placements

_STEPS: Final = (0.0, 0.5, 1.0, 1.5, 2.0)
_TOP: Final = 2.0
_PALETTE: Final = interp_palette(RdBu11, 255)  # from blue to red
_HEIGHT: Final = 340


def heat_charts(placements: Placements) -> dict[str, Figure]:
    """Experts by layer, then GPUs by layer for every strategy; by title."""
    experts = "How often each expert is chosen"
    charts = {
        experts: _heat("heat-experts", placements.experts, "expert", "expert"),
    }
    for number, name in enumerate(placements.strategies):
        loads = placements.loads[placements.loads["strategy"] == name]
        charts[f"Load of each GPU, placed by {name}"] = _heat(
            f"heat-{number}", loads, "gpu", "GPU"
        )
    return charts


def heat_legend() -> list[tuple[str, str]]:
    """What colours stand for: text and colour."""
    last = len(_PALETTE) - 1
    legend = [
        (f"{step:g}", str(_PALETTE[round(last * step / _TOP)])) for step in _STEPS
    ]
    return [*legend[:-1], (f"{_TOP:g} or more", legend[-1][1])]


def _heat(name: str, loads: pd.DataFrame, column: str, label: str) -> Figure:
    grid = loads.pivot_table(index="layer", columns=column, values="relative_load")
    image = grid.to_numpy(dtype=np.float32)
    layers, units = image.shape
    chart = new_chart(
        name,
        label,
        "MoE layer",
        height=_HEIGHT,
        x_range=(-0.5, units - 0.5),
        y_range=(-0.5, layers - 0.5),
    )
    renderer = chart.image(
        image=[image],
        x=-0.5,
        y=-0.5,
        dw=units,
        dh=layers,
        color_mapper=LinearColorMapper(palette=_PALETTE, low=0.0, high=_TOP),
        level="image",
    )
    tips = [("layer", "$y{0}"), (label, "$x{0}"), ("load / mean", "@image{0.00}")]
    chart.add_tools(hover([renderer], tips))
    chart.grid.grid_line_color = None
    for axis in (chart.xaxis, chart.yaxis):  # no half experts, GPUs or layers
        axis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
    return chart
