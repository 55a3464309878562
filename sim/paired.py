"""Paired differences between two policies that served the same requests."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import pandas as pd

from sim.statistics.intervals import batch_means_half_width

METRICS: Final = ("ttft_ms", "e2el_ms", "max_itl_ms")
PAIRED_COLUMNS: Final = (
    "metric",
    "requests",
    "mean_difference_ms",
    "ci_low_ms",
    "ci_high_ms",
)


def paired_differences(
    requests: pd.DataFrame, baseline: pd.DataFrame
) -> list[dict[str, Any]]:
    """Mean difference per request, with a 95 % interval, of each of ``METRICS``.

    Only requests count that have the metric under both policies. Neighbouring requests
    share a queue, so the interval is one of batch means, of ``BATCHES`` batches. It
    covers the chance of one finite load, not that of other seeds; past saturation the
    difference grows with time, and the interval is about its mean over this run.

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
    half = batch_means_half_width(values)
    numbers = (mean, mean - half, mean + half)
    known = [None if math.isnan(number) else number for number in numbers]
    return dict(zip(PAIRED_COLUMNS, (metric, values.size, *known), strict=True))
