"""The first two objectives of frontiers in plain characters, for a terminal."""

from __future__ import annotations

from string import ascii_uppercase

from reports.frontier import Frontiers
from reports.text_plot import Mark, scatter_text


def frontier_text(found: Frontiers) -> list[str]:
    """Lines of a plot and its legend: a letter per group, large on its frontier.

    Args:
        found: Points and frontiers.

    Returns:
        At most 78 characters a line; nothing where fewer than two points can be drawn
        on logarithmic axes.
    """
    letters = {
        name: ascii_uppercase[place % len(ascii_uppercase)]
        for place, name in enumerate(found.names)
    }
    marks = [
        Mark(float(values[0]), float(values[1]), letters[group], bool(front))
        for values, group, front in zip(
            found.values, found.groups.tolist(), found.on_group, strict=True
        )
    ]
    x, y = found.objectives[:2]
    lines = scatter_text(marks, x.label, y.label)
    legend = [f"{letter} {name}" for name, letter in letters.items()]
    return [*lines, *legend, "small: beaten by its own group"] if lines else []
