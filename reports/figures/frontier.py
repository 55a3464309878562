"""Figure: TTFT against TBT at one rate, by the knob of each policy, with frontiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.figures.axes import scale_axis, shared_legend
from reports.figures.labels import PointLabel, place_labels
from reports.frame import caption, policy_order
from reports.pareto import pareto_front
from reports.style import (
    BLACK,
    MIDDLE_GREY,
    PolicyStyle,
    new_figure,
    paper_style,
    policy_styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_X: Final = "mean_ttft_s"
_Y: Final = "p99_tbt_ms"
_BAND: Final = MIDDLE_GREY
_RING: Final[dict[str, Any]] = {
    "markerfacecolor": "none",
    "markeredgecolor": BLACK,
    "markersize": 9.0,
}
_MARGIN: Final = 0.12  # of the data's extent: room for labels and frontiers
_LONE_MARGIN: Final = 0.3  # the same around a single value, in units of that value
# By knob: its words in the legend, and the unit beside a point.
_KNOBS: Final = {
    "max_num_batched_tokens": ("chunk size in tokens", ""),
    "num_layer_groups": ("layer groups", "group"),
}


@paper_style()
def pareto_figure(frame: pd.DataFrame) -> Figure:
    """Draw mean TTFT against p99 TBT, one marker per policy and value of its knob.

    The value stands beside its marker. A step line bounds the region that a policy's
    settings dominate; the wide grey one does so for all policies together, and the
    settings on it are ringed. A setting that served fewer requests than others (Orca
    refuses prompts beyond its batch) is easily faster, so it does not count there.

    Args:
        frame: A checked trade-off frame.

    Returns:
        The figure, not yet saved.
    """
    values = _values(frame)
    styles = policy_styles(policy_order(frame))
    rate = frame["request_rate"].iloc[0]
    figure = new_figure(4.2, f"{caption(frame)}, {rate:g} req/s")
    axes = figure.add_subplot()
    axes.set(xlabel="Mean TTFT (s)", ylabel="p99 TBT (ms)")
    _fit(axes, "x", values[_X])
    _fit(axes, "y", values[_Y])
    joint = _front(values[values["served"] == 1])
    _step(axes, joint, color=_BAND, linewidth=5.0)
    for name, style in styles.items():
        rows = values[values["scheduler"] == name]
        _step(axes, _front(rows), color=style.color, linewidth=1.2)
        axes.plot(rows[_X], rows[_Y], style.marker, color=style.color)
        label = style.label + _by_knob(rows)
        axes.plot([], [], color=style.color, marker=style.marker, label=label)
    axes.plot(joint[:, 0], joint[:, 1], "o", **_RING)
    axes.plot([], [], "o-", color=_BAND, lw=5.0, label="joint frontier", **_RING)
    shared_legend(figure, axes.get_legend_handles_labels()[0])
    place_labels(axes, _labels(values, styles))
    return figure


def _values(frame: pd.DataFrame) -> pd.DataFrame:
    """Objectives, share served and knob; settings that fall together share a row."""
    values = pd.DataFrame(
        {
            "scheduler": frame["scheduler"],
            _X: frame["mean_ttft_ms"] / 1e3,
            _Y: frame["p99_itl_ms"],
            "served": frame["completed"] / frame["completed"].max(),
            "knob": frame["knob"].astype(object).fillna(""),
            "value": [f"{v:.0f}" if v > 0 else "" for v in frame["knob_value"]],
        }
    ).dropna()
    together = values.groupby([c for c in values if c != "value"], sort=False)
    return together["value"].agg(", ".join).reset_index()


def _by_knob(rows: pd.DataFrame) -> str:
    """The end of a policy's legend entry; nothing without a knob."""
    knobs = [knob for knob in rows["knob"].unique() if knob]
    return "".join(f", by {_KNOBS.get(knob, (knob,))[0]}" for knob in knobs)


def _front(values: pd.DataFrame) -> npt.NDArray[np.float64]:
    """The non-dominated points by growing TTFT, shape (m, 2)."""
    points = values[[_X, _Y]].to_numpy(dtype=np.float64)
    front = points[pareto_front(points, (True, True))]
    return front[np.argsort(front[:, 0], kind="stable")]


def _fit(axes: Axes, which: Literal["x", "y"], values: pd.Series) -> None:
    """Scale and limit an axis so that all values lie well inside."""
    if values.empty:
        return
    logarithmic = scale_axis(axes, which, values)
    values = values[values > 0] if logarithmic else values
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        low, high = low * (low / high) ** _MARGIN, high * (high / low) ** _MARGIN
    else:
        room = _MARGIN * (high - low) or _LONE_MARGIN * high or 1.0
        low, high = low - room, high + room
    axes.set(**{f"{which}lim": (low, high)})


def _step(axes: Axes, front: npt.NDArray[np.float64], **line: Any) -> None:
    """Bound the dominated region, from the top edge down the front to the right."""
    if front.size == 0:
        return
    right, top = axes.get_xlim()[1], axes.get_ylim()[1]
    x = np.concatenate([front[:1, 0], front[:, 0], [right]])
    y = np.concatenate([[top], front[:, 1], front[-1:, 1]])
    axes.plot(x, y, drawstyle="steps-post", **line)


def _labels(values: pd.DataFrame, styles: dict[str, PolicyStyle]) -> list[PointLabel]:
    """What stands beside the points, each in its policy's colour."""
    texts = [
        _text(*row)
        for row in zip(values["knob"], values["value"], values["served"], strict=True)
    ]
    columns = zip(values["scheduler"], values[_X], values[_Y], texts, strict=True)
    return [
        PointLabel(x, y, text, styles[name].color)
        for name, x, y, text in columns
        if text
    ]


def _text(knob: str, value: str, served: float) -> str:
    """The knob's value, "512" or "16 groups", and the share served if not all."""
    unit = _KNOBS.get(knob, ("", ""))[1]
    words = [f"{value} {unit}{'' if value == '1' else 's'}" if unit else value]
    if served < 1:
        words.append(f"{100 * served:.0f} % served")
    return ", ".join(word for word in words if word)
