"""How far chance in one finite load moves what a page shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from reports.html.study import Run
from sim.statistics.intervals import batch_means_half_width

_REQUESTS_FILE: Final = "requests.csv.gz"
# Per-request columns behind a summary key: their mean over requests is its value.
_COLUMNS: Final = {
    "mean_ttft_ms": "ttft_ms",
    "mean_e2el_ms": "e2el_ms",
    "slo_attainment": "met_slo",
}


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over requests with its 95 % interval, in the file's unit."""

    mean: float
    half: float


def own_interval(run: Run, key: str) -> Interval | None:
    """The interval of a run's mean, by batch means over its requests in order.

    Returns:
        None where the key is no mean over requests, or there are too few of them.
    """
    values = _values(run, key)
    return None if values is None else _interval(values)


def paired_interval(run: Run, baseline: Run, key: str) -> Interval | None:
    """The interval of the mean difference to a baseline that served the same requests.

    Returns:
        None as :func:`own_interval`, or where the requests are not the same.
    """
    same = run.summary["workload_sha256"] == baseline.summary["workload_sha256"]
    mine, other = _values(run, key), _values(baseline, key)
    if not same or mine is None or other is None or len(mine) != len(other):
        return None
    return _interval(mine - other)


def _values(run: Run, key: str) -> pd.Series | None:
    column = _COLUMNS.get(key)
    if column is None or run.summary.get(key) is None:
        return None
    frame = run.table(_REQUESTS_FILE)
    return None if frame is None else frame[column].astype(float)


def _interval(values: pd.Series) -> Interval | None:
    known = values.dropna().to_numpy(dtype=np.float64)
    half = batch_means_half_width(known)
    return None if math.isnan(half) else Interval(float(known.mean()), half)
