"""Intervals hold what they promise, and warm-up and growth are found."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sim.statistics import (
    is_unstable,
    mean_interval,
    mser5_cut,
    quantile_interval,
    required_for_quantile,
)
from sim.studies.replications import means_frame
from workloads.streams import stream

TRIALS = 1000


def waits(rate: float, customers: int, name: str, runs: int) -> np.ndarray:
    """Waiting times of an M/D/1 queue of unit service, shape (runs, customers)."""
    gaps = stream(0, name).exponential(1 / rate, (runs, customers))
    wait = np.zeros((runs, customers))
    for k in range(1, customers):
        wait[:, k] = np.maximum(wait[:, k - 1] + 1 - gaps[:, k], 0)
    return wait


def test_student_interval_by_hand() -> None:
    """Four values: t = 3.182 at 3 degrees (NIST table), deviation sqrt(5/3)."""
    interval = mean_interval([1.0, 2.0, 3.0, 4.0, math.nan])
    assert interval.estimate == 2.5
    assert interval.count == 4
    assert interval.half_width == pytest.approx(
        3.18245 * math.sqrt(5 / 3 / 4), rel=1e-5
    )
    assert math.isnan(mean_interval([1.0]).low)
    assert math.isnan(mean_interval([]).estimate)


def test_replication_intervals_cover_the_mean_wait_of_a_queue() -> None:
    """M/D/1 at load 0.7: Pollaczek-Khinchine 0.7 / 0.6; 92-98 % of 95 % intervals.

    Ten replications of 2,000 customers, 200 times, past a warm-up of 300.
    """
    means = waits(0.7, 2300, "coverage", 2000)[:, 300:].mean(axis=1)
    intervals = [mean_interval(row) for row in means.reshape(200, 10)]
    true = 0.7 / (2 * (1 - 0.7))
    assert 0.92 <= np.mean([i.low <= true <= i.high for i in intervals]) <= 0.98


def test_percentile_intervals_cover_whatever_the_law() -> None:
    """p50 and p90 of 200 values, p99 of 1,000; normal and Pareto."""
    for share, n, quantile, draw in (
        (0.5, 200, stats.norm.ppf(0.5), stream(1, "n").standard_normal),
        (0.9, 200, stats.pareto.ppf(0.9, 2) - 1, lambda s: stream(2, "p").pareto(2, s)),
        (0.99, 1000, stats.norm.ppf(0.99), stream(3, "n").standard_normal),
    ):
        rows = draw((TRIALS, n))
        intervals = [quantile_interval(row, share) for row in rows]
        covered = np.mean([i.low <= quantile <= i.high for i in intervals])
        assert 0.94 <= covered <= 0.985, share


@pytest.mark.parametrize("n", [10, 20, 100, 400])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_ranks_are_the_binomial_ones(n: int, share: float) -> None:
    """Against scipy's binomial law; too few data have no interval."""
    interval = quantile_interval(np.arange(1, n + 1), share)
    low = max(k for k in range(n + 1) if stats.binom.cdf(k - 1, n, share) <= 0.025)
    high = min(k for k in range(1, n + 2) if stats.binom.sf(k - 1, n, share) <= 0.025)
    if low < 1 or high > n:
        assert math.isnan(interval.low)
    else:
        assert (interval.low, interval.high) == (low, high)
    assert math.isnan(interval.low) == (n < required_for_quantile(share))


def test_a_p99_needs_368_requests() -> None:
    """1 - 0.99 ** n must reach 97.5 %."""
    assert required_for_quantile(0.99) == 368
    assert 0.99**368 <= 0.025 < 0.99**367


def test_warm_up_cut_removes_the_bias_of_a_bad_start() -> None:
    """A queue that starts with 100 waiting: the mean without the cut is far off."""
    rate, runs = 0.8, 20
    gaps = stream(0, "warm-up").exponential(1 / rate, (runs, 6000))
    wait = np.full((runs, 6000), 100.0)
    for k in range(1, 6000):
        wait[:, k] = np.maximum(wait[:, k - 1] + 1 - gaps[:, k], 0)
    series = wait.mean(axis=0)
    true = rate / (2 * (1 - rate))
    cut = mser5_cut(series)
    assert cut is not None
    assert 200 <= cut <= 1500  # 100 waiting drain in 100 / 0.2 services, 400 arrivals
    assert abs(series[cut:].mean() - true) < 0.15 * true
    assert series.mean() > 2 * true


def test_warm_up_by_hand_and_its_refusal() -> None:
    """Ten batches, the first two high: drop them; a ramp never settles."""
    series = np.repeat([9.0, 5, 1, 2, 1, 2, 1, 2, 1, 2], 5)
    assert mser5_cut(series) == 10
    assert mser5_cut(np.arange(100.0)) is None
    assert mser5_cut(np.arange(9.0)) is None
    assert mser5_cut(np.ones(50)) == 0


def queue_frame(load: float, customers: int, seed: int) -> pd.DataFrame:
    gaps = stream(seed, f"stability/{load}").exponential(1 / load, customers)
    arrivals = np.cumsum(gaps)
    finishes = np.empty(customers)
    free = 0.0
    for k, at in enumerate(arrivals):
        free = finishes[k] = max(at, free) + 1
    ns = pd.DataFrame({"arrival_ns": arrivals * 1e9, "finish_ns": finishes * 1e9})
    return ns.round().astype("Int64")


def test_overload_is_told_from_heavy_load() -> None:
    """M/D/1, 2,000 customers, 40 seeds: never at 0.9, always at 1.15."""
    assert not any(is_unstable(queue_frame(0.9, 2000, s)) for s in range(40))
    assert all(is_unstable(queue_frame(1.15, 2000, s)) for s in range(40))
    assert not is_unstable(queue_frame(3.0, 50, 0))  # too few to tell


def test_means_over_seeds() -> None:
    """Per setting; failures are counted apart."""
    points = pd.DataFrame(
        {
            "key": list("abcdef"),
            "status": ["ok"] * 5 + ["failed"],
            "error": [""] * 5 + ["no"],
            "engine.scheduler": ["x", "x", "x", "y", "y", "y"],
            "seed": [0, 1, 2, 0, 1, 2],
            "completed": [400, 400, 400, 400, 300, math.nan],
            "mean_ttft_ms": [1.0, 2.0, 3.0, 5.0, 5.0, math.nan],
            "energy_j": [1.0, 2.0, 3.0, 5.0, 5.0, math.nan],
            "unstable": [False] * 5 + [math.nan],
        }
    )
    means = means_frame(points, ("engine.scheduler", "seed")).set_index(
        "engine.scheduler"
    )
    assert means["replications"].to_dict() == {"x": 3, "y": 2}
    assert means["failed"].to_dict() == {"x": 0, "y": 1}
    assert means["p99_too_few"].to_dict() == {"x": False, "y": True}
    assert means.loc["x", "mean_ttft_ms"] == 2.0
    half = 4.302653 * math.sqrt(1 / 3)  # t at 2 degrees, NIST table
    assert means.loc["x", "mean_ttft_ms_ci_high"] == pytest.approx(2 + half, rel=1e-6)
    assert means.loc["y", "mean_ttft_ms_ci_low"] == 5.0
    points.loc[1, "unstable"] = True
    means = means_frame(points, ("engine.scheduler", "seed")).set_index(
        "engine.scheduler"
    )
    assert means["unstable"].to_dict() == {"x": 1, "y": 0}
    assert math.isnan(means.loc["x", "mean_ttft_ms"])  # of a queue that grows
    assert means.loc["x", "energy_j"] == 2.0
