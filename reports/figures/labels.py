"""Labels beside points, placed where they cover neither data nor each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Floats = npt.NDArray[np.float64]

# Directions (right, up) to try, best first, at growing distances in points. Only right
# beside its point, above, below, left or right, does a label need no leader.
_DIRECTIONS: Final = (
    (0, 1),
    (0, -1),
    (1, 0),
    (-1, 0),
    (1, 1),
    (-1, 1),
    (1, -1),
    (-1, -1),
)
_BESIDE_PT: Final = 5.0
_AWAY_PT: Final = (10.0, 16.0, 22.0, 28.0, 34.0)
_PLACES: Final = tuple(
    (distance, right, up)
    for distance, (right, up) in (
        *product((_BESIDE_PT,), _DIRECTIONS[:4]),
        *product(_AWAY_PT, _DIRECTIONS),
    )
)
_PADDING_PT: Final = 1.0  # kept free around a label
_POINTS_PER_INCH: Final = 72.0
_MARKER_PT: Final = 3.0  # half a marker
_LINE_PT: Final = 1.0  # half a line, and the spacing of the boxes that stand for it
_HORIZONTAL: Final = {-1: "right", 0: "center", 1: "left"}
_VERTICAL: Final = {-1: "top", 0: "center", 1: "bottom"}


@dataclass(frozen=True, slots=True)
class PointLabel:
    """A text that belongs to the point (x, y) in data coordinates."""

    x: float
    y: float
    text: str
    color: str


def place_labels(
    axes: Axes, labels: Sequence[PointLabel], font_size: float = 7.0
) -> None:
    """Write every label next to its point, in free space where there is any.

    Greedy: labels are placed in the order given, each at the first candidate position
    that lies inside the axes and covers no line, marker or earlier label, or else at
    the one that covers least. Call it last, when limits and scales are final.

    Args:
        axes: Where the points are drawn.
        labels: The points and their texts.
        font_size: In points.
    """
    figure = axes.get_figure(root=True)
    if figure is None or not labels:
        return
    figure.draw_without_rendering()  # settles the layout, so pixels are final
    pixel = figure.dpi / _POINTS_PER_INCH
    inside = np.asarray(axes.bbox.extents, dtype=np.float64)
    taken = _drawn(axes, pixel)
    for label in labels:
        boxes = _candidates(axes, label, font_size, pixel)
        costs = [_hidden_area(box, inside, taken) for box in boxes]
        best = int(np.argmin(np.round(costs, 3)))  # the first of equals
        taken = np.vstack([taken, boxes[best]])
        _write(axes, label, _PLACES[best], font_size)


def _drawn(axes: Axes, pixel: float) -> _Floats:
    """Boxes around all lines and markers, rows (left, bottom, right, top) in pixels."""
    boxes = [np.empty((0, 4))]
    for line in axes.lines:
        corners = np.asarray(line.get_path().vertices, dtype=np.float64)
        corners = line.get_transform().transform(corners)
        corners = corners[np.isfinite(corners).all(axis=1)]
        if line.get_marker() not in {"None", None, ""}:
            boxes.append(_squares(corners, _MARKER_PT * pixel))
        if line.get_linestyle() != "None":
            reach = _LINE_PT * pixel
            boxes.append(_squares(_along(corners, 2 * reach), reach))
    return np.vstack(boxes)


def _squares(centres: _Floats, reach: float) -> _Floats:
    """Boxes that reach so far from each centre, shape (n, 4)."""
    return np.hstack([centres - reach, centres + reach])


def _along(corners: _Floats, spacing: float) -> _Floats:
    """Points along a polyline, no further apart than the spacing."""
    if len(corners) < 2:
        return corners
    lengths = np.hypot(*np.diff(corners, axis=0).T)
    at = np.concatenate([[0.0], np.cumsum(lengths)])
    wanted = np.linspace(0.0, at[-1], int(at[-1] / spacing) + 2)
    return np.column_stack([np.interp(wanted, at, axis) for axis in corners.T])


def _candidates(
    axes: Axes, label: PointLabel, font_size: float, pixel: float
) -> _Floats:
    """What the label would cover at every one of `_PLACES`, shape (places, 4)."""
    trial = axes.text(0, 0, label.text, fontsize=font_size)
    size = np.asarray(trial.get_window_extent().size, dtype=np.float64)
    trial.remove()
    point = axes.transData.transform((label.x, label.y))
    places = np.asarray(_PLACES)
    distance, way = places[:, :1] * pixel, places[:, 1:]
    low = point + way * distance + size * (way - 1) / 2
    padding = _PADDING_PT * pixel
    return np.hstack([low - padding, low + size + padding])


def _hidden_area(box: _Floats, inside: _Floats, taken: _Floats) -> float:
    """Square pixels of a box that cover something drawn or lie outside the axes."""
    outside = _shared_area(box, box[np.newaxis]) - _shared_area(box, inside[np.newaxis])
    return outside + _shared_area(box, taken)


def _shared_area(box: _Floats, others: _Floats) -> float:
    """Sum of the areas a box shares with each of the others, in square pixels."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    return float(np.clip(high - low, 0.0, None).prod(axis=1).sum())


def _write(
    axes: Axes, label: PointLabel, place: tuple[float, int, int], font_size: float
) -> None:
    """Draw the label at its place, with a leader if it is far from its point."""
    distance_pt, right, up = place
    leader: dict[str, Any] = {
        "arrowstyle": "-",
        "color": label.color,
        "linewidth": 0.5,
        "shrinkA": 0.5,
        "shrinkB": _MARKER_PT,
    }
    note = axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=(distance_pt * right, distance_pt * up),
        textcoords="offset points",
        color=label.color,
        fontsize=font_size,
        ha=_HORIZONTAL[right],
        va=_VERTICAL[up],
        arrowprops=leader if distance_pt > _BESIDE_PT else None,
    )
    note.set_in_layout(False)
