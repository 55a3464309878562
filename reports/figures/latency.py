"""Figure: latency and SLO attainment against the request rate."""

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
from reports.frame import caption, finite_rates, policy_order, readable
from reports.pareto import rate_at_attainment
from reports.style import DARK_GREY, new_figure, paper_style, policy_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The attainment at which the layered-prefill paper compares policies (2510.08055).
_LEVEL_PERCENT: Final = 90.0
_RANGE_PERCENT: Final = (-5.0, 108.0)  # 0 to 100 % and room for markers


@paper_style()
def latency_figure(frame: pd.DataFrame) -> Figure:
    """Draw mean TTFT, p99 TBT, mean E2E latency and SLO attainment against rate.

    The limits of the SLOs are dashed; they hold for each request, while the lines are
    means or percentiles. In the last panel every policy's rate at 90 % attainment is
    written where its line crosses that level.

    Args:
        frame: A checked compare frame.

    Returns:
        The figure, not yet saved.
    """
    values = readable(finite_rates(frame))
    ttft_limit_s = float(frame["slo_ttft_ms"].iloc[0]) / 1e3
    tbt_limit_ms = float(frame["slo_itl_ms"].iloc[0])
    figure = new_figure(5.2, caption(frame))
    ttft, tbt, e2e, slo = figure.subplots(2, 2).flat
    _panel(ttft, values, "mean_ttft_s", "Mean TTFT (s)", ttft_limit_s)
    _panel(tbt, values, "p99_tbt_ms", "p99 TBT (ms)", tbt_limit_ms)
    _panel(e2e, values, "mean_e2e_s", "Mean E2E latency (s)")
    _panel(slo, values, "slo_percent", "SLO attainment (%)", _LEVEL_PERCENT)
    slo.set(yscale="linear", ylim=_RANGE_PERCENT)
    limits = [
        f"TTFT {ttft_limit_s:g} s" if np.isfinite(ttft_limit_s) else "",
        f"every TBT {tbt_limit_ms:g} ms" if np.isfinite(tbt_limit_ms) else "",
        f"{_LEVEL_PERCENT:g} % of requests",
    ]
    slo.lines[-1].set_label("SLO: " + ", ".join(text for text in limits if text))
    shared_legend(figure, slo.get_legend_handles_labels()[0])
    place_labels(slo, _crossings(values))
    return figure


def _panel(
    axes: Axes,
    values: pd.DataFrame,
    column: str,
    label: str,
    limit: float = math.nan,
) -> None:
    """Draw one quantity of all policies, and its limit if there is one."""
    plot_policies(axes, values, column)
    rate_axis(axes, values["rate_req_s"])
    scale_axis(axes, "y", [*values[column], limit])
    axes.set_ylabel(label)
    if np.isfinite(limit):
        axes.axhline(limit, color=DARK_GREY, linestyle="--", linewidth=1.0)


def _crossings(values: pd.DataFrame) -> list[PointLabel]:
    """The rate at 90 % attainment of every policy that crosses it in range."""
    labels = []
    for name, style in policy_styles(policy_order(values)).items():
        rows = values[values["scheduler"] == name]
        rate = rate_at_attainment(
            rows["rate_req_s"], rows["slo_percent"], _LEVEL_PERCENT
        )
        if np.isfinite(rate):
            text = f"{rate:.2f} req/s"
            labels.append(PointLabel(rate, _LEVEL_PERCENT, text, style.color))
    return labels
