"""Figure: energy per token against the request rate, and what it is spent on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.figures.axes import (
    plot_policies,
    rate_axis,
    rate_texts,
    scale_axis,
    start_at_zero,
)
from reports.frame import ENERGY_PARTS, caption, finite_rates, policy_order, readable
from reports.style import (
    DARK_GREY,
    GREY,
    LIGHT_GREY,
    ORANGE,
    SKY_BLUE,
    YELLOW,
    PolicyStyle,
    new_figure,
    paper_style,
    policy_styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# No colour that stands for a policy.
_PART_COLORS: Final = dict(
    zip(ENERGY_PARTS, (SKY_BLUE, GREY, ORANGE, YELLOW, LIGHT_GREY), strict=True)
)
_PART_LABELS: Final = {"hbm": "HBM", "flop": "FLOP"}
_MAX_TICKS: Final = 16  # rates that fit side by side under the bars
_GROUP_WIDTH: Final = 0.8  # of the distance between two rates
# Right of the axes, left aligned; the part legend is stacked like the bars.
_BESIDE: Final[dict[str, Any]] = {
    "loc": "center left",
    "bbox_to_anchor": (1.0, 0.5),
    "alignment": "left",
}
_LABEL: Final = "Energy per prompt or\noutput token (mJ)"


@paper_style()
def energy_figure(frame: pd.DataFrame) -> Figure:
    """Draw mJ per (prompt + output) token against rate: total, then by part.

    In the lower panel the bars of a rate stand side by side, each above its policy's
    marker, and stack the run, wait, HBM, FLOP and idle parts of the energy model.

    Args:
        frame: A checked compare frame.

    Returns:
        The figure, not yet saved.
    """
    values = readable(finite_rates(frame))
    figure = new_figure(5.6, caption(frame))
    total, parts = figure.subplots(2, 1, height_ratios=(1.0, 1.3))
    plot_policies(total, values, "energy_mj_token")
    scale_axis(total, "y", values["energy_mj_token"])
    rate_axis(total, values["rate_req_s"])
    total.set_ylabel(_LABEL)
    _stack(parts, values)
    total.legend(title="Policy", **_BESIDE)
    parts.legend(title="Part", reverse=True, **_BESIDE)
    return figure


def _stack(axes: Axes, values: pd.DataFrame) -> None:
    """Draw one stacked bar per rate and policy."""
    rates = sorted(set(values["rate_req_s"]))
    styles = policy_styles(policy_order(values))
    width = _GROUP_WIDTH / len(styles)
    heights = values[[f"energy_{part}_mj_token" for part in ENERGY_PARTS]]
    # A bar without one of its parts would mislead: leave it out.
    heights = heights.where(heights.notna().all(axis=1), 0.0)
    group = np.array([rates.index(rate) for rate in values["rate_req_s"]])
    turn = np.array([list(styles).index(name) for name in values["scheduler"]])
    x = group + (turn - (len(styles) - 1) / 2) * width
    bottom = np.zeros(len(values))
    for part, color in _PART_COLORS.items():
        height = heights[f"energy_{part}_mj_token"].to_numpy(dtype=np.float64)
        axes.bar(
            x,
            height,
            0.9 * width,
            bottom,
            label=_PART_LABELS.get(part, part),
            color=color,
            edgecolor=DARK_GREY,
            linewidth=0.4,
        )
        bottom += height
    start_at_zero(axes, bottom)
    axes.set(
        xlabel="Request rate (req/s)", ylabel=_LABEL, xlim=(-0.6, len(rates) - 0.4)
    )
    every = math.ceil(len(rates) / _MAX_TICKS)
    axes.set_xticks(range(0, len(rates), every), rate_texts(rates)[::every])
    axes.tick_params(axis="x", length=0, pad=14)
    axes.grid(visible=False, axis="x")
    for name, style in styles.items():
        _mark_feet(axes, x[(values["scheduler"] == name).to_numpy()], style)


def _mark_feet(axes: Axes, x: npt.NDArray[np.float64], style: PolicyStyle) -> None:
    """Put the policy's marker below the foot of its bars."""
    axes.plot(
        x,
        np.full(x.size, -0.05),
        style.marker,
        color=style.color,
        markersize=4.0,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
    )
