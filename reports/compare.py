"""The report of a comparison: its figures, beside its result files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from reports.figures import (
    energy_figure,
    expert_figure,
    latency_figure,
    pareto_figure,
    remove_figure,
    save_figure,
)
from reports.frame import COMPARE_FILE, finite_rates, read_compare
from reports.tradeoff import TRADEOFF_FILE, read_tradeoff

FRONTIER: Final = "pareto"
_AGAINST_RATE: Final = {
    "latency": latency_figure,
    "energy": energy_figure,
    "experts": expert_figure,
}


def write_compare_report(directory: Path) -> list[Path]:
    """Draw the figures of a comparison next to its results.

    The frontier needs a ``tradeoff.csv``; the figures against the request rate need a
    rate, so they are left out when every run is closed loop or all at once. A figure
    left out does not stay behind from an earlier comparison either.

    Args:
        directory: Where ``servescope compare`` wrote its results.

    Returns:
        The files written, PNG and SVG of each figure.

    Raises:
        ConfigError: A result file is missing or malformed; nothing is written.
    """
    frame = read_compare(directory / COMPARE_FILE)
    source = directory / TRADEOFF_FILE
    figures = {}
    if source.exists():
        figures[FRONTIER] = pareto_figure(read_tradeoff(source))
    if not finite_rates(frame).empty:
        figures |= {stem: draw(frame) for stem, draw in _AGAINST_RATE.items()}
    for stem in {FRONTIER, *_AGAINST_RATE}.difference(figures):
        remove_figure(directory, stem)
    return [
        path
        for stem, figure in figures.items()
        for path in save_figure(figure, directory, stem)
    ]
