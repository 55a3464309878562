"""Figures of a placement comparison, from the files it wrote."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports.figures.placement import frontier_figure, heat_figure, traffic_figure
from reports.figures.save import save_figure
from reports.placement_files import LOADS_FILE, PLACE_FILE


def write_placement_report(directory: Path) -> list[Path]:
    """Draw load heat-map, balance against affinity, and traffic as PNG and SVG.

    Args:
        directory: Holds ``place.csv`` and ``loads.csv.gz``.

    Returns:
        The figures' paths.
    """
    table = pd.read_csv(directory / PLACE_FILE)
    loads = pd.read_csv(directory / LOADS_FILE)
    paths = save_figure(heat_figure(loads), directory, "load_heat_map")
    paths += save_figure(frontier_figure(table), directory, "balance_affinity")
    paths += save_figure(traffic_figure(table), directory, "placement_traffic")
    return paths
