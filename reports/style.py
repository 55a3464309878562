"""How every figure looks: palette, markers and sizes, the same bytes each time.

Matplotlib is imported only when a figure is made, so importing reports is cheap, and
never through pyplot, so no figure, backend or setting outlives its context.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008): told apart under every common form
# of colour blindness.
BLACK: Final = "#000000"
ORANGE: Final = "#E69F00"
SKY_BLUE: Final = "#56B4E9"
BLUISH_GREEN: Final = "#009E73"
YELLOW: Final = "#F0E442"
BLUE: Final = "#0072B2"
VERMILLION: Final = "#D55E00"
REDDISH_PURPLE: Final = "#CC79A7"
# Neutral tones for what is no policy: limits, frontiers, waiting, idling.
DARK_GREY: Final = "#555555"
GREY: Final = "#999999"
MIDDLE_GREY: Final = "#C4C4C4"
LIGHT_GREY: Final = "#DDDDDD"

FULL_WIDTH_IN: Final = 7.0  # text width of a two-column paper (IEEE 7.16, ACM 7.0)
PNG_DPI: Final = 200
_TITLE_COLUMNS: Final = 90  # letters of the title size that fit the width

_RC: Final[dict[Any, Any]] = {
    "font.family": ["DejaVu Sans"],  # shipped with Matplotlib: the same everywhere
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "figure.titlesize": 9.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 5.0,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT_GREY,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "figure.dpi": PNG_DPI,
    "savefig.dpi": PNG_DPI,
    "svg.hashsalt": "servescope",  # element ids from content, not from a random salt
    "svg.fonttype": "path",  # letters as outlines: no font needed to read the file
}


@dataclass(frozen=True, slots=True)
class PolicyStyle:
    """How one scheduler is drawn in every figure."""

    color: str
    marker: str
    label: str


_KNOWN: Final = {
    "chunked-prefill": (VERMILLION, "s"),
    "layered-prefill": (BLUE, "o"),
    "orca": (BLUISH_GREEN, "^"),
    "static": (REDDISH_PURPLE, "D"),
}
_SPARE: Final = (ORANGE, SKY_BLUE, BLACK, YELLOW)
_SPARE_MARKERS: Final = ("v", "P", "X", "*", "<", "h", ">", "p", "d", "8", "H")
"""Four colours and eleven markers in turn: 44 pairs before one comes again."""


def policy_styles(names: Iterable[str]) -> dict[str, PolicyStyle]:
    """Give each scheduler its colour, marker and legend text.

    Args:
        names: Scheduler names; one without a colour of its own takes a spare one,
            in the order given.

    Returns:
        A style for every name, in the order given.
    """
    ordered = list(dict.fromkeys(names))
    new = [name for name in ordered if name not in _KNOWN]
    spare = zip(cycle(_SPARE), cycle(_SPARE_MARKERS), strict=False)
    looks = dict(zip(new, spare, strict=False)) | _KNOWN
    return {name: PolicyStyle(*looks[name], name.replace("-", " ")) for name in ordered}


@contextmanager
def paper_style() -> Iterator[None]:
    """Set the figure defaults for a block or, as a decorator, for a function.

    Starts from Matplotlib's own defaults, so a user's matplotlibrc changes nothing,
    and restores all settings at the end. Figures must be saved inside too, because
    some settings are read only when drawing.
    """
    import matplotlib as mpl  # noqa: PLC0415  (lazy on purpose, see above)

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def new_figure(height_in: float, title: str) -> Figure:
    """Make an empty full-width figure on the Agg canvas; its layout fits itself.

    Args:
        height_in: Height in inches.
        title: Text above the figure, broken into lines if it is long.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(FULL_WIDTH_IN, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, _TITLE_COLUMNS))
    return figure
