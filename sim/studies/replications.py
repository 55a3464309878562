"""Replications of a sweep's points put together: means with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from sim.statistics import mean_interval, required_for_quantile
from sim.studies.study import SEED

MEANS_FILE: Final = "means.csv"
_LATENCY: Final = ("_ttft_ms", "_tpot_ms", "_itl_ms", "_e2el_ms")
# Numbers of a result that say what was run, not what came out.
_NOT_METRICS: Final = (
    SEED,
    "request_rate",
    "burstiness",
    "max_concurrency",
    "num_prompts",
)


def means_frame(points: pd.DataFrame, varied: Sequence[str]) -> pd.DataFrame:
    """Mean and Student-t interval of every number, over points that differ in seed.

    Args:
        points: See :class:`sim.studies.sweep.SweepResult`; failed rows do not count.
        varied: The varied keys.

    Returns:
        A row per setting: the varied keys but the seed, ``replications``, ``failed``,
        and for each metric ``NAME``, ``NAME_ci_low``, ``NAME_ci_high``, empty with one
        replication. ``unstable`` counts the replications whose queue grew; latencies
        then have no mean and stay empty. ``p99_too_few`` says that some replication
        had fewer requests than an interval of a p99 needs (368).
    """
    keys = [key for key in varied if key != SEED]
    metrics = _metrics(points, varied)
    rows = []
    for _, group in _groups(points, keys):
        good = group[group["status"] == "ok"]
        row: dict[str, object] = {key: group[key].iloc[0] for key in keys}
        row |= {"replications": len(good), "failed": len(group) - len(good)}
        few = required_for_quantile(0.99)
        row["p99_too_few"] = (
            bool((good["completed"] < few).any()) if len(good) else True
        )
        # a study of which no point finished has no column of results at all
        row["unstable"] = int(good["unstable"].astype(bool).sum()) if len(good) else 0
        for name in metrics:
            values = good[name].to_numpy(dtype=np.float64)
            grows = row["unstable"] and name.endswith(_LATENCY)
            interval = mean_interval([] if grows else values)
            row[name] = interval.estimate
            row[f"{name}_ci_low"] = interval.low
            row[f"{name}_ci_high"] = interval.high
        rows.append(row)
    return pd.DataFrame(rows)


def _metrics(points: pd.DataFrame, varied: Sequence[str]) -> list[str]:
    after = list(points.columns).index("error") + 1 + len(varied)
    numbers = points.iloc[:, after:].select_dtypes("number").columns
    return [str(name) for name in numbers if name not in _NOT_METRICS]


def _groups(
    points: pd.DataFrame, keys: Sequence[str]
) -> list[tuple[object, pd.DataFrame]]:
    if not keys:
        return [((), points)]
    return list(points.groupby(list(keys), sort=False, dropna=False))
