"""Predictions beside measurements, with signed errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from statistics import median
from typing import Any, Final

import pandas as pd
from joblib import Parallel, cpu_count, delayed

from calibration.measured import fit_cases, held_out_cases
from reports.pareto import rate_at_attainment
from sim.build import build_machine
from sim.config import Config
from sim.config_file import load_config
from sim.micro_benchmark import predict
from sim.runner import run_config
from sim.summary import Summary

MICRO_PROFILES: Final = ("layered-prefill-v1", "vllm-0.24")
SLO_RATES: Final = tuple(round(1.0 + 0.1 * i, 1) for i in range(9))
"""Rates at which the paper's Fig. 3 (a) was measured, and below."""
DEFAULT_SEEDS: Final = 5
_SCHEDULERS: Final = ("chunked-prefill", "layered-prefill")
_RATE_METRIC: Final = "rate_at_90_slo"


def micro_benchmark(profiles: Sequence[str] = MICRO_PROFILES) -> pd.DataFrame:
    """The layered-prefill micro-benchmark, part by part (calibration of v1 and v2).

    Returns:
        Columns profile, chunk_tokens, part, measured_ms (NaN where not published),
        predicted_ms, error (predicted / measured - 1). "other" is measured as total
        minus MoE minus attention, where attention was published.
    """
    case = fit_cases()["lp-micro"]
    rows = []
    for profile in profiles:
        machine = build_machine(load_config(None, (), {"calibration.profile": profile}))
        for i, chunk in enumerate(case["chunk_tokens"]):
            predicted = predict(machine, chunk)
            moe, total = case["moe_ms"][i], case["total_ms"][i]
            attention = case["attention_ms"].get(str(chunk), float("nan"))
            for part, measured_ms, predicted_ms in (
                ("moe", moe, predicted.moe_ms),
                ("attention", attention, predicted.attention_ms),
                ("other", total - moe - attention, predicted.other_ms),
                ("total", total, predicted.total_ms),
            ):
                rows.append((profile, chunk, part, measured_ms, predicted_ms))
    columns = ["profile", "chunk_tokens", "part", "measured_ms", "predicted_ms"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(error=frame["predicted_ms"] / frame["measured_ms"] - 1.0)


def end_to_end(
    seeds: int = DEFAULT_SEEDS,
    jobs: int | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Simulate every held-out case by its protocol, under seeds 0, 1, ...

    One seed is one draw of arrivals and lengths, as a measurement is one run; the
    spread over seeds says how much a single run can tell.

    Returns:
        Columns case, profile, scheduler, metric, measured, predicted (median over
        seeds), lowest, highest, error (of the median), source.

    Raises:
        SimulationError: If a scheduler breaks an invariant.
    """
    wanted = needed_runs(seeds)
    tasks = [delayed(_run)(i, config) for i, config in enumerate(wanted.values())]
    summaries: dict[int, Summary] = {}
    workers = Parallel(n_jobs=jobs or cpu_count(), return_as="generator_unordered")
    for index, summary in workers(tasks):
        summaries[index] = summary
        on_done()
    runs = {key: summaries[index] for index, key in enumerate(wanted)}
    rows = []
    for case in held_out_cases():
        for scheduler in _SCHEDULERS:
            if scheduler in case:
                by_seed = [
                    _predicted(case, scheduler, seed, runs) for seed in range(seeds)
                ]
                rows.append(_row(case, scheduler, by_seed))
    return pd.DataFrame(rows)


_Key = tuple[str, str, float, int]


def needed_runs(seeds: int = DEFAULT_SEEDS) -> dict[_Key, Config]:
    """Every run the cases need, once, by (profile, scheduler, rate, seed)."""
    runs: dict[_Key, Config] = {}
    for case in held_out_cases():
        for scheduler, rate, seed in product(_SCHEDULERS, _rates(case), range(seeds)):
            if scheduler in case:
                key = (case["profile"], scheduler, rate, seed)
                runs[key] = _config(case, scheduler, rate, seed)
    return runs


def _row(
    case: Mapping[str, Any], scheduler: str, by_seed: Sequence[float]
) -> dict[str, Any]:
    predicted = median(by_seed)
    return {
        "case": case["case"],
        "profile": case["profile"],
        "scheduler": scheduler,
        "metric": case["metric"],
        "measured": case[scheduler],
        "predicted": predicted,
        "lowest": min(by_seed),
        "highest": max(by_seed),
        "error": predicted / case[scheduler] - 1.0,
        "source": case["source"],
    }


def _rates(case: Mapping[str, Any]) -> tuple[float, ...]:
    return SLO_RATES if case["metric"] == _RATE_METRIC else (case["request_rate"],)


def _config(case: Mapping[str, Any], scheduler: str, rate: float, seed: int) -> Config:
    return load_config(
        None,
        (),
        {
            "seed": seed,
            "calibration.profile": case["profile"],
            "engine.scheduler": scheduler,
            "workload.request_rate": rate,
            "workload.duration_s": case.get("duration_s"),
            "workload.num_requests": case.get("num_requests"),
        },
    )


def _run(index: int, config: Config) -> tuple[int, Summary]:
    return index, run_config(config).summary


def _predicted(
    case: Mapping[str, Any], scheduler: str, seed: int, runs: Mapping[_Key, Summary]
) -> float:
    def summary(rate: float) -> Summary:
        return runs[case["profile"], scheduler, rate, seed]

    if case["metric"] == _RATE_METRIC:
        attainment = [summary(rate)["slo_attainment"] for rate in SLO_RATES]
        return rate_at_attainment(SLO_RATES, attainment)
    return float(summary(case["request_rate"])[case["metric"]])
