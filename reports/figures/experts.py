"""Figure: expert weight bytes read from HBM against the request rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from reports.figures.axes import (
    plot_policies,
    rate_axis,
    scale_axis,
    shared_legend,
)
from reports.figures.labels import PointLabel, place_labels
from reports.frame import CANDIDATE, caption, change_percent, finite_rates, readable
from reports.style import new_figure, paper_style, policy_styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_LABELS: Final = 10  # percentages that fit side by side in half a page width


@paper_style()
def expert_figure(frame: pd.DataFrame) -> Figure:
    """Draw expert weight traffic against rate: TB in the run and GB per request.

    Beside the points of layered prefill stands its change against chunked prefill at
    the same rate, in %, if the frame has both.

    Args:
        frame: A checked compare frame.

    Returns:
        The figure, not yet saved.
    """
    values = readable(finite_rates(frame))
    figure = new_figure(3.2, caption(frame))
    run, request = figure.subplots(1, 2, width_ratios=(1.0, 1.3))
    panels = (
        (run, "expert_tb", "Expert weights read in the run (TB)"),
        (request, "expert_gb_request", "Expert weights read (GB/request)"),
    )
    for axes, column, label in panels:
        plot_policies(axes, values, column)
        scale_axis(axes, "y", values[column])
        rate_axis(axes, values["rate_req_s"])
        axes.set_ylabel(label)
    changes = _changes(finite_rates(frame))
    title = "Beside the points: layered against chunked prefill (%)" if changes else ""
    shared_legend(figure, run.get_legend_handles_labels()[0], title)
    place_labels(request, changes)
    return figure


def _changes(frame: pd.DataFrame) -> list[PointLabel]:
    """The change of layered against chunked prefill, at most `_MAX_LABELS` of them."""
    values = readable(frame)
    layered = values[values["scheduler"] == CANDIDATE]
    change = change_percent(frame)[["rate_req_s", "expert_gb_request"]].dropna()
    labelled = change.merge(layered, on="rate_req_s", suffixes=("_change", ""))
    stride = max(1, math.ceil(len(labelled) / _MAX_LABELS))
    columns = labelled[["rate_req_s", "expert_gb_request", "expert_gb_request_change"]]
    color = policy_styles([CANDIDATE])[CANDIDATE].color
    return [
        PointLabel(rate, y, f"{percent:+.0f}".replace("-", "\N{MINUS SIGN}"), color)
        for rate, y, percent in columns.iloc[::stride].to_numpy(dtype=np.float64)
    ]
