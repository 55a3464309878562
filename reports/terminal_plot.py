"""Points as characters, for a terminal."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from rich.text import Text

from reports.frontier import Frontiers

_MARKS: Final = "ox+*#@%&"
_COLORS: Final = ("red", "blue", "green", "magenta", "cyan", "yellow")
_TICK_WIDTH: Final = 9
_WIDTH: Final = 64
_HEIGHT: Final = 16


def terminal_plot(found: Frontiers, width: int = _WIDTH, height: int = _HEIGHT) -> Text:
    """The first objective (x) against the second (y), frontiers in capitals' place.

    A group's points on its frontier have its mark, the others a dot of its colour.

    Args:
        found: Points and frontiers.
        width: Columns of the plot's inside.
        height: Its lines.
    """
    known = ~np.isnan(found.values).any(axis=1)
    columns = _cells(found.values[known, 0], width)
    rows = height - 1 - _cells(found.values[known, 1], height)
    cells: dict[tuple[int, int], tuple[str, str]] = {}
    order = np.argsort(found.on_group[known], kind="stable")  # frontiers on top
    for i in order:
        place = found.names.index(found.groups[known][i])
        mark = _MARKS[place % len(_MARKS)] if found.on_group[known][i] else "."
        cells[int(rows[i]), int(columns[i])] = (mark, _COLORS[place % len(_COLORS)])
    text = Text(f"{found.objectives[1].label}\n")
    y, x = found.values[known, 1], found.values[known, 0]
    ticks = {0: y.max(), height - 1: y.min()}
    for row in range(height):
        tick = f"{ticks[row]:.4g}" if row in ticks else ""
        text.append(f"{tick:>{_TICK_WIDTH}} |")
        for column in range(width):
            mark, color = cells.get((row, column), (" ", ""))
            text.append(mark, style=color)
        text.append("\n")
    text.append(f"{'':>{_TICK_WIDTH}} +{'-' * width}\n")
    low, high, label = f"{x.min():.4g}", f"{x.max():.4g}", found.objectives[0].label
    middle = label.center(width - len(low) - len(high))
    text.append(f"{'':>{_TICK_WIDTH}}  {low}{middle}{high}\n")
    for place, name in enumerate(found.names):
        color = _COLORS[place % len(_COLORS)]
        text.append(f"  {_MARKS[place % len(_MARKS)]} {name}", style=color)
    text.append("  (. beaten by its own group)")
    return text


def _cells(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    low, high = values.min(), values.max()
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return np.rint(share * (count - 1)).astype(np.int64)
