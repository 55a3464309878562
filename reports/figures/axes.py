"""What the figures share: rate axes, sensible scales, policy lines and legends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.frame import policy_order
from reports.style import policy_styles

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOG_SPAN: Final = 10.0  # a decade between smallest and largest: use a log scale
_HEADROOM: Final = 1.12  # top of a linear axis over the largest value
_MAX_RATE_TICKS: Final = 10  # more rates than this and Matplotlib chooses the ticks
_RATE_MARGIN: Final = 0.08  # of the rates' extent: room for markers and labels
_LEGEND_COLUMNS: Final = 4
_LEGEND_LETTERS: Final = 110  # that fit the width of a figure
_HANDLE_LETTERS: Final = 7  # as wide as a line with its gaps


def rate_texts(rates: Sequence[float]) -> list[str]:
    """Rates as tick labels, all with as many decimals as one of them needs."""
    decimals = max((len(f"{rate:g}".partition(".")[2]) for rate in rates), default=0)
    return [f"{rate:.{decimals}f}" for rate in rates]


def rate_axis(axes: Axes, rates: Iterable[float]) -> None:
    """Label the x axis as request rate, with a tick at every simulated rate."""
    ticks = sorted(set(rates))
    room = _RATE_MARGIN * (ticks[-1] - ticks[0]) or _RATE_MARGIN
    axes.set(xlabel="Request rate (req/s)", xlim=(ticks[0] - room, ticks[-1] + room))
    if len(ticks) <= _MAX_RATE_TICKS:
        axes.set_xticks(ticks, rate_texts(ticks))


def scale_axis(axes: Axes, which: Literal["x", "y"], values: Iterable[float]) -> bool:
    """Choose a log scale if the values span a decade, else start y at zero.

    Returns:
        Whether the scale is logarithmic.
    """
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415

    array = np.asarray(list(values), dtype=np.float64)
    positive = array[np.isfinite(array) & (array > 0)]
    if positive.size and positive.max() / positive.min() >= _LOG_SPAN:
        axes.set(**{f"{which}scale": "log"})
        axis = axes.xaxis if which == "x" else axes.yaxis
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
        return True
    if which == "y":
        start_at_zero(axes, positive)
    return False


def start_at_zero(axes: Axes, values: npt.NDArray[np.float64]) -> None:
    """Let the y axis go from zero to a little over the largest value."""
    axes.set_ylim(0, _HEADROOM * values.max(initial=0.0) or 1.0)


def plot_policies(axes: Axes, values: pd.DataFrame, column: str) -> None:
    """Draw one line per policy against the rate; unknown values leave a gap."""
    for name, style in policy_styles(policy_order(values)).items():
        rows = values[values["scheduler"] == name]
        axes.plot(
            rows["rate_req_s"].to_numpy(),
            rows[column].to_numpy(),
            color=style.color,
            marker=style.marker,
            label=style.label,
        )


def shared_legend(figure: Figure, handles: Sequence[Artist], title: str = "") -> None:
    """Put one legend in rows below the figure, where it can cover nothing."""
    figure.legend(
        handles=handles,
        title=title or None,
        loc="outside lower center",
        ncols=_columns([str(handle.get_label()) for handle in handles]),
    )


def _columns(labels: Sequence[str]) -> int:
    """The most columns, filled downwards, whose entries fit side by side."""
    for columns in range(min(len(labels), _LEGEND_COLUMNS), 1, -1):
        parts = np.array_split(labels, columns)
        widths = [max(map(len, part)) + _HANDLE_LETTERS for part in parts]
        if sum(widths) <= _LEGEND_LETTERS:
            return columns
    return 1
