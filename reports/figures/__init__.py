"""One figure a module, each a function from a frame to a Matplotlib figure."""

from reports.figures.energy import energy_figure
from reports.figures.experts import expert_figure
from reports.figures.frontier import pareto_figure
from reports.figures.latency import latency_figure
from reports.figures.save import remove_figure, save_figure

__all__ = [
    "energy_figure",
    "expert_figure",
    "latency_figure",
    "pareto_figure",
    "remove_figure",
    "save_figure",
]
