"""Figure: one quantity of a sweep against another, with the frontiers of its groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from reports.figures.axes import scale_axis, shared_legend
from reports.figures.labels import PointLabel, place_labels
from reports.frontier import Frontiers
from reports.style import (
    BLACK,
    new_figure,
    paper_style,
    policy_styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGIN: Final = 0.1
_FAINT: Final = 0.35  # of points that others of their group beat
_MOST_LABELS: Final = 30
_RING: Final[dict[str, Any]] = {
    "markerfacecolor": "none",
    "markeredgecolor": BLACK,
    "markersize": 9.0,
    "linestyle": "none",
}


@paper_style()
def objectives_figure(
    found: Frontiers, title: str, labels: list[str] | None = None
) -> Figure:
    """Draw the first objective (x) against the second (y).

    Every group has a colour and marker; points on its frontier are full, others
    faint. Lines bound what a group's settings reach; points on the joint frontier are
    ringed.

    Args:
        found: Points and frontiers.
        title: Above the figure.
        labels: A text per point, written beside those on a group's frontier.

    Returns:
        The figure, not yet saved.
    """
    figure = new_figure(4.0, title)
    axes = figure.add_subplot()
    draw_objectives(axes, found, labels)
    shared_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def draw_objectives(
    axes: Axes, found: Frontiers, labels: list[str] | None = None
) -> None:
    """Draw what :func:`objectives_figure` shows into the given axes."""
    x, y = found.values[:, 0], found.values[:, 1]
    axes.set(xlabel=found.objectives[0].label, ylabel=found.objectives[1].label)
    _fit(axes, "x", x)
    _fit(axes, "y", y)
    texts: list[PointLabel] = []
    for name, style in policy_styles(found.names).items():
        rows = found.groups == name
        best, beaten = rows & found.on_group, rows & ~found.on_group
        look: dict[str, Any] = {
            "color": style.color,
            "marker": style.marker,
            "linestyle": "none",
        }
        axes.plot(x[beaten], y[beaten], alpha=_FAINT, **look)
        axes.plot(x[best], y[best], label=style.label, **look)
        _staircase(axes, found, best, style.color)
        if labels is not None:
            texts += [
                PointLabel(x[i], y[i], labels[i], style.color)
                for i in np.flatnonzero(best)
            ]
    joint = found.on_joint
    axes.plot(x[joint], y[joint], marker="o", label="joint frontier", **_RING)
    if len(texts) <= _MOST_LABELS:
        place_labels(axes, texts)


def _staircase(
    axes: Axes, found: Frontiers, rows: npt.NDArray[np.bool_], color: str
) -> None:
    """Bound what a frontier reaches, out to the worse edges of the axes."""
    signs = np.array([1.0 if o.minimise else -1.0 for o in found.objectives[:2]])
    costs = np.unique(found.values[rows, :2] * signs, axis=0)
    # of three objectives only the lower envelope of the first two is a staircase
    lower = np.minimum.accumulate(costs[:, 1]) if costs.size else costs[:, 1]
    keep = np.flatnonzero(costs[:, 1] == lower)
    costs = costs[keep]
    if costs.size == 0:
        return
    worst = [
        max(sign * edge for edge in _edges(axes, i)) for i, sign in enumerate(signs)
    ]
    steps_x = np.concatenate([costs[:1, 0], costs[:, 0], [worst[0]]])
    steps_y = np.concatenate([[worst[1]], costs[:, 1], costs[-1:, 1]])
    axes.plot(
        steps_x * signs[0],
        steps_y * signs[1],
        drawstyle="steps-post",
        color=color,
        linewidth=1.0,
        zorder=1,
    )


def _edges(axes: Axes, which: int) -> tuple[float, float]:
    return axes.get_xlim() if which == 0 else axes.get_ylim()


def _fit(axes: Axes, which: Literal["x", "y"], values: npt.NDArray[np.float64]) -> None:
    """Scale and limit an axis so that all values lie well inside."""
    known = values[np.isfinite(values)]
    if scale_axis(axes, which, known):
        known = known[known > 0]
        low, high = float(known.min()), float(known.max())
        low, high = low * (low / high) ** _MARGIN, high * (high / low) ** _MARGIN
    else:
        low, high = float(known.min()), float(known.max())
        room = _MARGIN * (high - low) or _MARGIN * abs(high) or 1.0
        low, high = low - room, high + room
    axes.set(**{f"{which}lim": (low, high)})
