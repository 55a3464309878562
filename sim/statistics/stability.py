"""Whether a queue grows for as long as requests come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from sim.statistics.intervals import t_quantile

if TYPE_CHECKING:
    import pandas as pd

# Growth, as a share of the arrival rate, below which a finite run cannot tell a
# heavily loaded stable queue from an overloaded one.
_MIN_GROWTH: Final = 0.05
_WINDOWS: Final = 20
_FEWEST: Final = 100


def is_unstable(requests: pd.DataFrame) -> bool:
    """Whether the number in the system grew with time while requests arrived.

    A line through the mean number in the system over 20 windows of the second half
    of the arrivals: unstable if it rises by more than 5 % of the arrival rate, and
    by more than its own 95 % error. At load rho > 1 the rise is (1 - 1 / rho) of the
    rate, so loads from about 1.06 on are told; below that, a longer run tells.

    Args:
        requests: See :func:`sim.outcomes.outcomes_table`. A closed loop, whose
            users wait, is never unstable; nor is what has under 100 arrivals.
    """
    arrivals = np.sort(requests["arrival_ns"].to_numpy(dtype=np.float64)) / 1e9
    if arrivals.size < _FEWEST or arrivals[-1] <= arrivals[0]:
        return False
    finishes = requests["finish_ns"].dropna().to_numpy(dtype=np.float64) / 1e9
    refused = requests["finish_ns"].isna().to_numpy()
    refusals = requests.loc[refused, "arrival_ns"].to_numpy(dtype=np.float64) / 1e9
    leaving = np.sort(np.concatenate([finishes, refusals]))
    middle, last = (arrivals[0] + arrivals[-1]) / 2, arrivals[-1]
    times = np.linspace(middle, last, 10 * _WINDOWS + 1)[1:]
    number = np.searchsorted(arrivals, times, "right") - np.searchsorted(
        leaving, times, "right"
    )
    windows = number.reshape(_WINDOWS, -1).mean(axis=1)
    growth, error = _slope(times.reshape(_WINDOWS, -1).mean(axis=1), windows)
    rate = arrivals.size / (arrivals[-1] - arrivals[0])
    return bool(growth > _MIN_GROWTH * rate and growth > error)


def _slope(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Least-squares slope and its 95 % error, errors taken as independent."""
    dx, dy = x - x.mean(), y - y.mean()
    slope = float((dx * dy).sum() / (dx**2).sum())
    variance = float(((dy - slope * dx) ** 2).sum()) / (x.size - 2)
    error = t_quantile(x.size - 2) * (variance / float((dx**2).sum())) ** 0.5
    return slope, error
