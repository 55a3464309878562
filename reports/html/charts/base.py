"""What the charts share: empty figures, policy looks, scales, and tags for the page.

Colours of text and grids are set by the page, which knows whether it is dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bokeh.models import HoverTool, PanTool, ResetTool, Span, WheelZoomTool
from bokeh.plotting import figure as Figure  # noqa: N812  (a class)

from reports.style import DARK_GREY, PolicyStyle, policy_styles

__all__ = [
    "Figure",
    "hover",
    "limit_line",
    "looks",
    "marker",
    "new_chart",
    "of_load",
    "scale_of",
    "start_at_zero",
]

HEIGHT: Final = 300
LOG_SPAN: Final = 10.0  # as in reports.figures.axes
_MARKERS: Final = {
    "s": "square",
    "o": "circle",
    "^": "triangle",
    "D": "diamond",
    "v": "inverted_triangle",
    "P": "plus",
    "X": "square_pin",
    "*": "star",
}
_OTHER_MARKER: Final = "hex"


def new_chart(
    name: str,
    x_label: str,
    y_label: str,
    *,
    height: int = HEIGHT,
    drag: Any = None,
    tools: Iterable[Any] = (),
    **options: Any,
) -> Figure:
    """An empty chart as wide as its place on the page.

    The wheel zooms with Ctrl held, so that a page scrolls as usual; a drag does
    nothing unless ``drag`` says so, for the same reason on a phone.

    Args:
        name: How the page finds it.
        x_label: What its x axis shows, with the unit.
        y_label: What its y axis shows, with the unit.
        height: In pixels.
        drag: The tool that a drag starts.
        tools: Tools besides wheel, pan and reset.
        options: As of :class:`bokeh.plotting.figure`.
    """
    wheel = WheelZoomTool(modifiers={"ctrl": True})
    pans = [] if isinstance(drag, PanTool) else [PanTool()]
    chart = Figure(
        name=name,
        height=height,
        sizing_mode="stretch_width",
        x_axis_label=x_label,
        y_axis_label=y_label,
        tools=[
            *([drag] if drag is not None else []),
            *pans,
            wheel,
            *tools,
            ResetTool(),
        ],
        toolbar_location=None,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        **options,
    )
    chart.toolbar.active_drag = drag
    chart.toolbar.active_scroll = wheel
    chart.toolbar.logo = None
    return chart


def hover(renderers: Sequence[Any], tooltips: Sequence[tuple[str, str]]) -> HoverTool:
    """A hover box over these renderers; field values are escaped by the library."""
    return HoverTool(renderers=list(renderers), tooltips=list(tooltips))


def scale_of(values: Iterable[float]) -> str:
    """Give "log" where the values span a decade, else "linear"."""
    known = [value for value in values if math.isfinite(value) and value > 0]
    wide = bool(known) and max(known) / min(known) >= LOG_SPAN
    return "log" if wide else "linear"


def start_at_zero(chart: Figure) -> None:
    """Let a linear y axis begin at zero."""
    chart.y_range.start = 0


def limit_line(chart: Figure, value: float, axis: str = "width") -> None:
    """A dashed line at an SLO, across (``width``) or up (``height``)."""
    if math.isfinite(value):
        chart.add_layout(
            Span(
                location=value,
                dimension=axis,
                line_dash="dashed",
                line_color=DARK_GREY,
                line_width=1.5,
                tags=["ink"],
            )
        )


def looks(names: Iterable[str]) -> dict[str, PolicyStyle]:
    """Colour and legend text of each policy, as in the figures on paper."""
    return policy_styles(names)


def marker(style: PolicyStyle) -> str:
    """The marker of a policy in Bokeh's words; all can be filled without an outline."""
    return _MARKERS.get(style.marker, _OTHER_MARKER)


def of_load(renderer: Any, load: str) -> Any:
    """The renderer, tagged so that the page shows it at one load only."""
    renderer.tags = [f"load:{load}"]
    return renderer
