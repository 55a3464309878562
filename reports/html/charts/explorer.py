"""Charts: any two quantities of all configurations, with frontier and linked choice.

One data source feeds both charts, so what is chosen in one is chosen in the other;
the page filters it, moves its axes and draws the frontier of what is left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from bokeh.models import (
    BooleanFilter,
    BoxSelectTool,
    CDSView,
    ColumnDataSource,
    TapTool,
)

from reports.html.charts.base import Figure, hover, looks, marker, new_chart
from reports.html.quantities import QUANTITIES, Quantity
from reports.html.study import Run
from reports.style import BLACK, DARK_GREY

SOURCE: Final = "explorer-source"
FILTER: Final = "explorer-filter"
Axes = tuple[tuple[str, str], tuple[str, str]]
AXES: Final[Axes] = (
    ("mean_ttft_ms", "p99_itl_ms"),
    ("mean_e2el_ms", "energy_per_token_j"),
)
"""What the two charts show first, (x, y)."""
_SHOWN: Final = (
    *("mean_ttft_ms", "p99_itl_ms", "mean_e2el_ms", "slo_attainment"),
    *("request_goodput", "energy_per_token_j"),
)
_MOST_CHOICES: Final = 12
_FEW: Final = 300
_SIZE: Final = 10  # of a marker, in pixels
_SMALL_SIZE: Final = 7  # where there are more than a few points


@dataclass(frozen=True, slots=True)
class Key:
    """A configuration key that differs between points.

    Attributes:
        column: Its column in the data source.
        name: The key.
        choices: Its values as text, in order; empty where there are too many of them.
        first: The only one shown at first; empty for all.
    """

    column: str
    name: str
    choices: tuple[str, ...]
    first: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explorer:
    """The two charts, and what the page needs to drive them.

    Attributes:
        charts: Both.
        keys: What may be filtered by.
        quantities: Columns of the table.
        choices: What an axis may show: quantities, and keys that are numbers.
        axes: What they show first, (x, y) of each chart.
    """

    charts: tuple[Figure, Figure]
    keys: tuple[Key, ...]
    quantities: tuple[Quantity, ...]
    choices: tuple[Quantity, ...]
    axes: Axes


@dataclass(frozen=True, slots=True)
class Point:
    """A configuration and its results, as a row of the explorer."""

    config: dict[str, Any]
    summary: dict[str, Any]


def points_of(runs: Sequence[Run]) -> list[Point]:
    """The runs of a study as points."""
    return [Point(run.config, run.summary) for run in runs]


def explorer(
    points: Sequence[Point], first_shown: Mapping[str, str], axes: Axes = AXES
) -> Explorer | None:
    """The charts; None where there are fewer than three points to choose from.

    Args:
        points: What to choose from.
        first_shown: Keys, and the value that the page shows first.
        axes: What the axes show first: keys of ``result.json`` or of the
            configuration; the first choice takes the place of an unknown one.
    """
    if len(points) < 3:
        return None
    keys = _keys(points, first_shown)
    quantities = tuple(
        quantity
        for quantity in QUANTITIES.values()
        if any(math.isfinite(quantity.value(point.summary)) for point in points)
    )
    texts = {
        key.column: [text_of(point.config.get(key.name)) for point in points]
        for key in keys
    }
    texts |= {f"text:{q.key}": [q.text(p.summary) for p in points] for q in quantities}
    numbers = {key.name: _numbers(points, key) for key in keys}
    numeric = {name: column for name, column in numbers.items() if column}
    choices = (
        *quantities,
        *(Quantity(name, name, "", less=None) for name in numeric),
    )
    source = _source(points, quantities, texts | numeric)
    chosen = BooleanFilter([True] * len(points), name=FILTER)
    first, second = (
        _chart(place, pair, source, chosen, keys, choices)
        for place, pair in enumerate(axes)
    )
    return Explorer((first, second), keys, quantities, choices, _shown(axes, choices))


def _shown(axes: Axes, choices: Sequence[Quantity]) -> Axes:
    """The axes, with the first choice in the place of unknown keys."""
    known = {choice.key for choice in choices}
    fallback = choices[0].key
    (a, b), (c, d) = axes
    a, b, c, d = (key if key in known else fallback for key in (a, b, c, d))
    return (a, b), (c, d)


def _numbers(points: Sequence[Point], key: Key) -> list[float]:
    """Values of a key, or nothing where one of them is no number."""
    values = [point.config.get(key.name) for point in points]
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return []
    return [float(v) for v in values if isinstance(v, int | float)]


def _keys(points: Sequence[Point], first_shown: Mapping[str, str]) -> tuple[Key, ...]:
    names = dict.fromkeys(name for point in points for name in point.config)
    keys: list[Key] = []
    for name in names:
        values = [point.config.get(name) for point in points]
        distinct = list(dict.fromkeys(text_of(value) for value in values))
        if len(distinct) > 1:
            choices = tuple(sorted(distinct, key=_order))
            few = choices if len(choices) <= _MOST_CHOICES else ()
            first = tuple(text for text in few if text == first_shown.get(name))
            keys.append(Key(f"key{len(keys)}", name, few, first))
    return tuple(keys)


def text_of(value: Any) -> str:
    """A configured value as a filter shows it."""
    return "none" if value is None else f"{value:g}" if _real(value) else str(value)


def _real(value: Any) -> bool:
    return isinstance(value, float)


def _order(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _source(
    points: Sequence[Point],
    quantities: Sequence[Quantity],
    texts: Mapping[str, list[Any]],
) -> ColumnDataSource:
    names = [str(point.summary["scheduler"]) for point in points]
    styles = looks(names)
    return ColumnDataSource(
        {
            **{q.key: [q.value(point.summary) for point in points] for q in quantities},
            **texts,
            "color": _rgba([styles[name].color for name in names]),
            "marker": [marker(styles[name]) for name in names],
            "policy": [styles[name].label for name in names],
            "served": [
                float(p.summary["completed"]) / (float(p.summary["num_prompts"]) or 1.0)
                for p in points
            ],
        },
        name=SOURCE,
    )


def _rgba(colors: Sequence[str]) -> np.ndarray:
    """Opaque ``#rrggbb`` colours as 0xRRGGBBAA: parsed here, not at every filter."""
    return np.array([int(color[1:] + "ff", 16) for color in colors], dtype=np.uint32)


def _chart(
    place: int,
    axes: tuple[str, str],
    source: ColumnDataSource,
    chosen: BooleanFilter,
    keys: Sequence[Key],
    quantities: Sequence[Quantity],
) -> Figure:
    known = {quantity.key: quantity for quantity in quantities}
    x, y = (known.get(key, quantities[0]) for key in axes)
    tap = TapTool(mode="xor")
    chart = new_chart(
        f"explorer-{place}",
        x.label,
        y.label,
        height=380,
        drag=BoxSelectTool(mode="append"),
        tools=[tap],
    )
    chart.toolbar.active_tap = tap
    points = chart.scatter(
        x.key,
        y.key,
        source=source,
        view=CDSView(filter=chosen),
        marker="marker",
        fill_color="color",
        line_color=None,
        size=_SIZE if len(source.data["policy"]) <= _FEW else _SMALL_SIZE,
        alpha=0.85,
        nonselection_alpha=0.25,
        selection_line_color=BLACK,
        selection_line_width=2,
        name=f"explorer-points-{place}",
    )
    front = chart.step(
        "x",
        "y",
        source=ColumnDataSource({"x": [], "y": []}),
        mode="after",
        color=DARK_GREY,
        line_width=3,
        alpha=0.7,
        name=f"explorer-front-{place}",
    )
    front.glyph.tags = ["ink"]  # grey on white and on black
    tips = [("policy", "@policy"), *((key.name, f"@{key.column}") for key in keys)]
    tips += [
        (known[key].title, f"@{{text:{key}}} {known[key].unit}")
        for key in _SHOWN
        if key in known
    ]
    chart.add_tools(hover([points], tips))
    return chart
