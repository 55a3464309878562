"""Charts: any two quantities of all configurations, with frontier and linked choice.

One data source feeds both charts, so what is chosen in one is chosen in the other;
the page filters it, moves its axes and draws the frontier of what is left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

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
from reports.style import BLACK, GREY

SOURCE: Final = "explorer-source"
FILTER: Final = "explorer-filter"
AXES: Final = (
    ("mean_ttft_ms", "p99_itl_ms"),
    ("mean_e2el_ms", "energy_per_token_j"),
)
"""What the two charts show first, (x, y)."""
_SHOWN: Final = (
    *("mean_ttft_ms", "p99_itl_ms", "mean_e2el_ms", "slo_attainment"),
    *("request_goodput", "energy_per_token_j"),
)
_MOST_CHOICES: Final = 12
_QUIET: Final = {"calibration.data_dir", "workload.path", "seed"}


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
        quantities: What an axis may show.
        columns: Everything of the points that the page prints: texts of keys and
            quantities by column.
    """

    charts: tuple[Figure, Figure]
    keys: tuple[Key, ...]
    quantities: tuple[Quantity, ...]
    columns: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Point:
    """A configuration and its results, as a row of the explorer."""

    config: dict[str, Any]
    summary: dict[str, Any]


def points_of(runs: Sequence[Run]) -> list[Point]:
    """The runs of a study as points."""
    return [Point(run.config, run.summary) for run in runs]


def explorer(
    points: Sequence[Point], first_shown: Mapping[str, str]
) -> Explorer | None:
    """The charts; None where there are fewer than three points to choose from.

    Args:
        points: What to choose from.
        first_shown: Keys, and the value that the page shows first.
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
    source = _source(points, quantities, texts)
    chosen = CDSView(filter=BooleanFilter([True] * len(points), name=FILTER))
    first, second = (
        _chart(place, axes, source, chosen, keys, quantities)
        for place, axes in enumerate(AXES)
    )
    return Explorer((first, second), keys, quantities, texts)


def _keys(points: Sequence[Point], first_shown: Mapping[str, str]) -> tuple[Key, ...]:
    names = dict.fromkeys(name for point in points for name in point.config)
    keys: list[Key] = []
    for name in names:
        values = [point.config.get(name) for point in points]
        distinct = list(dict.fromkeys(text_of(value) for value in values))
        if len(distinct) > 1 and name not in _QUIET:
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
    points: Sequence[Point], quantities: Sequence[Quantity], texts: dict[str, list[str]]
) -> ColumnDataSource:
    names = [str(point.summary["scheduler"]) for point in points]
    styles = looks(names)
    return ColumnDataSource(
        {
            **{q.key: [q.value(point.summary) for point in points] for q in quantities},
            **texts,
            "color": [styles[name].color for name in names],
            "marker": [marker(styles[name]) for name in names],
            "policy": [styles[name].label for name in names],
            "served": [
                float(p.summary["completed"]) / (float(p.summary["num_prompts"]) or 1.0)
                for p in points
            ],
        },
        name=SOURCE,
    )


def _chart(
    place: int,
    axes: tuple[str, str],
    source: ColumnDataSource,
    view: CDSView,
    keys: Sequence[Key],
    quantities: Sequence[Quantity],
) -> Figure:
    known = {quantity.key: quantity for quantity in quantities}
    x, y = (known.get(key, quantities[i]) for i, key in enumerate(axes))
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
    chart.step(
        "x",
        "y",
        source=ColumnDataSource({"x": [], "y": []}),
        mode="after",
        color=GREY,
        line_width=4,
        alpha=0.6,
        name=f"explorer-front-{place}",
    )
    points = chart.scatter(
        x.key,
        y.key,
        source=source,
        view=view,
        marker="marker",
        color="color",
        size=10,
        alpha=0.85,
        nonselection_alpha=0.25,
        selection_line_color=BLACK,
        selection_line_width=2,
        name=f"explorer-points-{place}",
    )
    tips = [("policy", "@policy"), *((key.name, f"@{key.column}") for key in keys)]
    tips += [
        (known[key].title, f"@{{text:{key}}} {known[key].unit}")
        for key in _SHOWN
        if key in known
    ]
    chart.add_tools(hover([points], tips))
    return chart
