"""How sure a number is: intervals, warm-up, growth without end."""

from sim.statistics.intervals import (
    Interval,
    batch_means_half_width,
    mean_interval,
    quantile_interval,
    required_for_quantile,
)
from sim.statistics.stability import is_unstable
from sim.statistics.warm_up import mser5_cut

__all__ = [
    "Interval",
    "batch_means_half_width",
    "is_unstable",
    "mean_interval",
    "mser5_cut",
    "quantile_interval",
    "required_for_quantile",
]
