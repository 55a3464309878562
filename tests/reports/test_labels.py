"""Labels on a crowded plot stay apart, inside and off the data."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from reports.figures.labels import PointLabel, place_labels
from reports.style import new_figure, paper_style


@pytest.fixture(params=[0.0, 0.004, 0.05])
def crowd(request: pytest.FixtureRequest) -> tuple[list[Bbox], list[Bbox], Bbox]:
    """Boxes of labels, boxes of points and the axes, with points so far apart."""
    with paper_style():
        figure = new_figure(4.0, "crowd")
        axes = figure.add_subplot()
        x = 0.5 + request.param * np.arange(8)
        axes.plot(x, x, "o")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        place_labels(axes, [PointLabel(v, v, f"{v:.2f}", "black") for v in x])
        figure.draw_without_rendering()
        notes = [note for note in axes.texts if isinstance(note, Annotation)]
        labels = [Text.get_window_extent(note) for note in notes]  # not the leader
        centres = axes.transData.transform(np.column_stack([x, x]))
        points = [Bbox.from_extents(*(c - 4), *(c + 4)) for c in centres]
        return labels, points, axes.get_window_extent()


def test_labels_overlap_nothing(
    crowd: tuple[list[Bbox], list[Bbox], Bbox],
) -> None:
    """No label covers another, a point, or the edge of the axes."""
    labels, points, axes = crowd
    assert len(labels) == 8
    assert not any(a.overlaps(b) for a, b in combinations(labels, 2))
    assert not any(a.overlaps(b) for a in labels for b in points)
    for box in labels:
        assert axes.x0 <= box.x0 <= box.x1 <= axes.x1
        assert axes.y0 <= box.y0 <= box.y1 <= axes.y1


def test_a_lone_label_sits_right_above_its_point() -> None:
    """With room everywhere the first choice is taken, without a leader."""
    with paper_style():
        figure = new_figure(4.0, "one")
        axes = figure.add_subplot()
        axes.plot([0.5], [0.5], "o")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        place_labels(axes, [PointLabel(0.5, 0.5, "x", "black")])
        note = axes.texts[0]
    assert isinstance(note, Annotation)
    assert note.arrow_patch is None
    assert (note.get_horizontalalignment(), note.get_verticalalignment()) == (
        "center",
        "bottom",
    )


def test_labels_avoid_lines() -> None:
    """A horizontal line through the point leaves above or below, not beside."""
    with paper_style():
        figure = new_figure(4.0, "line")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0.52, 0.52])
        axes.plot([0, 1], [0.5, 0.5])
        axes.set(xlim=(0, 1), ylim=(0, 1))
        place_labels(axes, [PointLabel(0.5, 0.5, "x", "black")])
        note = axes.texts[0]
    assert note.get_verticalalignment() == "top"


def test_labels_stay_inside_the_axes() -> None:
    """A point in the upper right corner has its label below or to the left."""
    with paper_style():
        figure = new_figure(4.0, "corner")
        axes = figure.add_subplot()
        axes.plot([0.99], [0.99], "o")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        place_labels(axes, [PointLabel(0.99, 0.99, "a long label", "black")])
        figure.draw_without_rendering()
        box, inside = Text.get_window_extent(axes.texts[0]), axes.get_window_extent()
    assert box.x1 <= inside.x1
    assert box.y1 <= inside.y1
