"""The steady state of a burst against hand-made runs and a slow count of gaps."""

from __future__ import annotations

import numpy as np
import pytest

from sim.config_file import load_config
from sim.errors import ConfigError
from sim.results import RunResult
from sim.run_tables import RunTables
from sim.runner import run_config
from sim.steady_state import steady_metrics, weighted_median
from sim.table import Table

_MS = 1_000_000


def _result(
    first_ms: list[int], finish_ms: list[int], log: list[tuple[int, int, int, float]]
) -> RunResult:
    """A run from token times and (start ms, end ms, decode tokens, joules)."""
    requests = {
        "first_token_ns": np.array(first_ms) * _MS,
        "finish_ns": np.array(finish_ms) * _MS,
    }
    start_ms, end_ms, tokens, energy_j = map(np.array, zip(*log, strict=True))
    iterations = {
        "start_ns": start_ms * _MS,
        "end_ns": end_ms * _MS,
        "decode_tokens": tokens,
        "energy_j": energy_j,
    }
    return RunResult(
        config=load_config(None),
        summary={"num_gpus": 2},
        tables=RunTables(requests=Table(requests), iterations=Table(iterations)),
    )


def test_metrics_by_hand() -> None:
    """Batch 2 of 4 requests: from the 2nd first token (10 ms) to the 3rd finish (80).

    Six iterations of 10, 10, 20, 10, 10 and 10 ms with two decodes each, and a prompt's
    first token at 40: 12 + 1 tokens in 70 ms. The first and the last iteration lie
    outside.
    """
    log = [(0, 10, 0, 5.0)]
    for start, end in ((10, 20), (20, 30), (30, 50), (50, 60), (60, 70), (70, 80)):
        log.append((start, end, 2, 7.0))
    log.append((80, 90, 1, 9.0))
    run = _result([5, 10, 40, 85], [45, 70, 80, 90], log)
    metrics = steady_metrics(run, 2)
    assert metrics["output_throughput"] == pytest.approx(13 / 0.070)
    assert metrics["power_per_gpu_w"] == pytest.approx(42.0 / 0.070 / 2)
    assert metrics["energy_per_output_token_j"] == pytest.approx(42.0 / 13)
    assert metrics["median_itl_ms"] == 10.0


def test_a_run_without_steady_state_is_refused() -> None:
    run = _result([10, 90], [20, 95], [(0, 100, 1, 1.0)])
    with pytest.raises(ConfigError, match="leaves before the batch is full"):
        steady_metrics(run, 2)


def test_weighted_median_is_that_of_the_repeated_values() -> None:
    rng = np.random.default_rng(3)
    for n in range(1, 30):
        values, weights = rng.integers(0, 9, n), rng.integers(1, 5, n)
        repeated = np.sort(np.repeat(values, weights))
        assert weighted_median(values, weights) == repeated[(repeated.size - 1) // 2]


def test_steady_state_of_a_simulated_burst_is_near_its_whole() -> None:
    """Where ramp and drain are short, throughput is close to the whole run's and,
    by Little's law, to batch / mean time per token."""
    config = load_config(
        None,
        (),
        {
            "engine.scheduler": "chunked-prefill",
            "engine.max_num_batched_tokens": 8192,
            "engine.max_num_seqs": 8,
            "workload.dataset": "random",
            "workload.random_input_len": 100,
            "workload.random_output_len": 50,
            "workload.random_range_ratio": 0.2,
            "workload.request_rate": "inf",
            "workload.num_requests": 200,
        },
    )
    result = run_config(config)
    metrics = steady_metrics(result, 8)
    summary = result.summary
    assert metrics["output_throughput"] == pytest.approx(
        summary["output_throughput"], rel=0.03
    )
    assert metrics["median_itl_ms"] == pytest.approx(summary["median_itl_ms"], rel=0.02)
    assert 2 * metrics["power_per_gpu_w"] == pytest.approx(
        summary["mean_power_w"], rel=0.03
    )
