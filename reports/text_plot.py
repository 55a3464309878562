"""A scatter plot in plain characters, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Final

WIDTH: Final = 78
_HEIGHT: Final = 14
_MARGIN: Final = 9  # columns left of the axis, for its numbers


@dataclass(frozen=True, slots=True)
class Mark:
    """A point and the letter that stands for it; ``front`` if nothing beats it."""

    x: float
    y: float
    letter: str
    front: bool = False


def letters_for(names: Sequence[str]) -> dict[str, str]:
    """A letter for each name: one of its own where that is free, else any that is."""
    letters: dict[str, str] = {}
    for name in names:
        free = [x for x in (*name.lower(), *ascii_lowercase) if x.isalpha()]
        taken = letters.values()
        letters[name] = next((x for x in free if x not in taken), name[0])
    return letters


def scatter_text(marks: Sequence[Mark], x_label: str, y_label: str) -> list[str]:
    """Draw marks on logarithmic axes; lines of at most ``WIDTH`` characters.

    A letter is large where nothing beats its point, small elsewhere; of two points in
    one place the one on the frontier shows.

    Args:
        marks: What to draw; those without two positive finite values are left out.
        x_label: Name and unit of the x axis.
        y_label: Name and unit of the y axis.

    Returns:
        Nothing where fewer than two marks can be drawn.
    """
    known = [mark for mark in marks if _drawable(mark.x) and _drawable(mark.y)]
    if len(known) < 2:
        return []
    xs, ys = _Axis.of([m.x for m in known]), _Axis.of([m.y for m in known])
    columns = WIDTH - _MARGIN - 2
    grid = [[" "] * columns for _ in range(_HEIGHT)]
    for mark in sorted(known, key=lambda mark: mark.front):
        row = _HEIGHT - 1 - ys.place(mark.y, _HEIGHT)
        letter = mark.letter.upper() if mark.front else mark.letter.lower()
        grid[row][xs.place(mark.x, columns)] = letter
    lines = [y_label]
    for row, cells in enumerate(grid):
        shown = {0: ys.high, _HEIGHT - 1: ys.low}.get(row)
        number = "" if shown is None else f"{shown:.4g}"
        lines.append(f"{number:>{_MARGIN}} |{''.join(cells)}".rstrip())
    lines.append(" " * _MARGIN + " +" + "-" * columns)
    low, high = f"{xs.low:.4g}", f"{xs.high:.4g}"
    gap = columns - len(low) - len(high)
    lines.append(" " * (_MARGIN + 2) + low + x_label.center(gap)[:gap] + high)
    return [line.rstrip() for line in lines]


def _drawable(value: float) -> bool:
    return math.isfinite(value) and value > 0


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> _Axis:
        return cls(min(values), max(values))

    def place(self, value: float, cells: int) -> int:
        """The cell of a value; the middle one where all values are equal."""
        if self.low == self.high:
            return cells // 2
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return min(round(share * (cells - 1)), cells - 1)
