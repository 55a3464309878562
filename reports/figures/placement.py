"""Figures: load by layer and GPU, balance against affinity, and what crosses links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from reports.style import (
    BLUE,
    DARK_GREY,
    ORANGE,
    SKY_BLUE,
    new_figure,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS: Final = 4


@paper_style()
def heat_figure(loads: pd.DataFrame) -> Figure:
    """Relative load of every GPU (x) in every layer (y), a panel per strategy."""
    names = list(dict.fromkeys(loads["strategy"]))
    rows = -(-len(names) // _COLUMNS)
    columns = min(len(names), _COLUMNS)
    figure = new_figure(0.8 + 2.2 * rows, "Load of a GPU against the mean of its layer")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    # White is balanced; red and blue are equally far above and below.
    spread = max(float((loads["relative_load"] - 1.0).abs().max()), 0.01)
    image = None
    for axes, name in zip(panels.flat, names, strict=False):
        part = loads[loads["strategy"] == name]
        grid = part.pivot_table(index="layer", columns="gpu", values="relative_load")
        image = axes.imshow(
            grid,
            aspect="auto",
            cmap="RdBu_r",
            vmin=1.0 - spread,
            vmax=1.0 + spread,
            origin="lower",
        )
        axes.set_title(name)
        axes.set_xlabel("GPU")
        axes.grid(visible=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels[:, 0]:
        axes.set_ylabel("MoE layer")
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    if image is not None:
        figure.colorbar(image, ax=panels, label="GPU load / mean (1 = balanced)")
    return figure


@paper_style()
def frontier_figure(table: pd.DataFrame) -> Figure:
    """Affinity against imbalance; up and left is better."""
    figure = new_figure(3.4, "Affinity against balance of expert placements")
    axes = figure.subplots()
    axes.scatter(table["load_par"], table["affinity"], color=BLUE, zorder=3)
    for row in table.itertuples():
        axes.annotate(
            str(row.strategy),
            (row.load_par, row.affinity),
            xytext=(5, 4),
            textcoords="offset points",
        )
    if "eval_affinity" in table:
        axes.scatter(
            table["eval_load_par"],
            table["eval_affinity"],
            facecolors="none",
            edgecolors=ORANGE,
            zorder=3,
        )
        axes.plot(
            table[["load_par", "eval_load_par"]].to_numpy().T,
            table[["affinity", "eval_affinity"]].to_numpy().T,
            color=DARK_GREY,
            linewidth=0.6,
        )
        axes.legend(["fitted on", "judged elsewhere"], loc="best")
    axes.set_xlabel("Max / mean GPU load, mean over layers (1 = balanced)")
    axes.set_ylabel("Moves that stay on a GPU (share)")
    return figure


@paper_style()
def traffic_figure(table: pd.DataFrame) -> Figure:
    """Cross-GPU and cross-node shares, remote sends of a token, and the worst link."""
    figure = new_figure(3.2, "What a placement sends over links")
    shares, sends, link = figure.subplots(1, 3, width_ratios=(1.5, 1.0, 1.0))
    x = np.arange(len(table))
    shares.bar(x - 0.2, 100 * table["cross_gpu_share"], 0.4, color=BLUE, label="GPU")
    shares.bar(
        x + 0.2, 100 * table["cross_node_share"], 0.4, color=ORANGE, label="node"
    )
    shares.legend(
        title="changes", ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )
    shares.set_ylabel("Moves between layers (%)")
    sends.bar(x, table["dispatch_sends"], 0.6, color=SKY_BLUE)
    sends.set_ylabel("Sends per token and layer")
    link.bar(x, 100 * table["worst_link"], 0.6, color=SKY_BLUE)
    link.set_ylabel("Busiest GPU pair (% of moves)")
    for axes in (shares, sends, link):
        axes.set_xticks(x, list(table["strategy"]), rotation=60, ha="right")
    return figure
