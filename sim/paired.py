"""Paired differences between two policies that served the same requests."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

METRICS: Final = ("ttft_ms", "e2el_ms", "max_itl_ms")
PAIRED_COLUMNS: Final = (
    "metric",
    "requests",
    "mean_difference_ms",
    "ci_low_ms",
    "ci_high_ms",
)
BATCHES: Final = 20
# Student's t, 97.5 % quantile at BATCHES - 1 = 19 degrees of freedom: NIST/SEMATECH
# e-Handbook of Statistical Methods, table 1.3.6.7.2.
_T_QUANTILE: Final = 2.093


def paired_differences(
    requests: pd.DataFrame, baseline: pd.DataFrame
) -> list[dict[str, Any]]:
    """Mean difference per request, with a 95 % interval, of each of ``METRICS``.

    Only requests count that have the metric under both policies.

    Args:
        requests: Requests frame of a policy.
        baseline: Requests frame of the policy it is compared with.

    Returns:
        Per metric: ``metric``, ``requests`` (pairs), ``mean_difference_ms`` (policy
        minus baseline, None without pairs), ``ci_low_ms`` and ``ci_high_ms`` (None
        with fewer than ``BATCHES`` pairs).
    """
    others = baseline.set_index("id").add_suffix("_baseline")
    pairs = requests.set_index("id").join(others, how="inner")
    return [
        _row(metric, (pairs[metric] - pairs[f"{metric}_baseline"]).dropna())
        for metric in METRICS
    ]


def _row(metric: str, difference: pd.Series) -> dict[str, Any]:
    values = difference.to_numpy(dtype=np.float64)
    mean = math.fsum(values.tolist()) / values.size if values.size else math.nan
    half = half_width(values)
    numbers = (mean, mean - half, mean + half)
    known = [None if math.isnan(number) else number for number in numbers]
    return dict(zip(PAIRED_COLUMNS, (metric, values.size, *known), strict=True))


def half_width(values: npt.NDArray[np.float64]) -> float:
    """Half the 95 % confidence interval of the mean of a correlated series.

    Neighbouring requests share a queue, so their differences are correlated and their
    plain standard error is too small. Batch means (Law, Simulation Modeling and
    Analysis, 5th ed., 9.5.3): means over ``BATCHES`` stretches of consecutive
    requests, whose sizes differ by at most one, are taken as independent and normal.
    10 to 30 batches are advised by Schmeiser, Oper. Res. 30 (1982) 556-568. The
    interval covers the chance of one finite load, not that of other seeds; past
    saturation the difference grows with time, and the interval is about its mean over
    this run.

    Args:
        values: The series in the order of arrival.

    Returns:
        The half width, or NaN with fewer values than batches.
    """
    if values.size < BATCHES:
        return math.nan
    means = [
        math.fsum(batch.tolist()) / batch.size
        for batch in np.array_split(values, BATCHES)
    ]
    centre = math.fsum(means) / BATCHES
    variance = math.fsum((m - centre) ** 2 for m in means) / (BATCHES - 1)
    return _T_QUANTILE * math.sqrt(variance / BATCHES)
