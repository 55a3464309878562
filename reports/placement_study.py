"""Figures of the study of scheduling policy times expert placement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from reports.figures.save import save_figure
from reports.frame import read_table
from reports.style import new_figure, paper_style, policy_styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDY_FILE: Final = "study.csv"
_PANELS: Final = (
    ("mean_ttft_ms", "Mean TTFT (s)", 1e-3),
    ("p99_itl_ms", "p99 TBT (ms)", 1.0),
    ("request_goodput", "Goodput (req/s)", 1.0),
    ("energy_per_token_j", "Energy (J/token)", 1.0),
)


def write_study_figures(directory: Path) -> list[Path]:
    """Draw one figure per case of ``study.csv``, as PNG and SVG."""
    runs = read_table(directory / STUDY_FILE)
    paths: list[Path] = []
    for number, (case, part) in enumerate(runs.groupby("case", sort=False), start=1):
        figure = study_figure(part, str(case))
        paths += save_figure(figure, directory, f"placement_study_{number}")
    return paths


@paper_style()
def study_figure(runs: pd.DataFrame, title: str) -> Figure:
    """Mean over seeds by placement and policy; bars span the seeds."""
    figure = new_figure(4.4, f"{title}: scheduling policy times expert placement")
    panels = figure.subplots(2, 2)
    placements = list(dict.fromkeys(runs["placement"]))
    styles = policy_styles(runs["scheduler"])
    x = np.arange(len(placements))
    for axes, (column, label, scale) in zip(panels.flat, _PANELS, strict=True):
        for number, (name, style) in enumerate(styles.items()):
            grid = (
                runs[runs["scheduler"] == name]
                .pivot_table(index="placement", columns="seed", values=column)
                .loc[placements]
                * scale
            )
            mean = grid.mean(axis=1)
            spread = [mean - grid.min(axis=1), grid.max(axis=1) - mean]
            place = x + (number - (len(styles) - 1) / 2) * 0.4
            axes.bar(
                place,
                mean,
                0.38,
                yerr=spread,
                color=style.color,
                label=style.label,
                error_kw={"linewidth": 0.8},
            )
        axes.set_ylabel(label)
        axes.set_xticks(x, placements, rotation=20)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(styles))
    return figure
