"""Predictions beside measurements, with signed errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed

from calibration.case import SLO_RATE, Case, Measurement
from calibration.measured import fit_cases
from reports.pareto import rate_at_attainment
from sim.build import build_machine
from sim.config import Config
from sim.config_file import load_config
from sim.config_text import config_sha256
from sim.error_summary import CALIBRATION, VALIDATION
from sim.micro_benchmark import predict
from sim.recording import Recording
from sim.runner import run_config
from sim.steady_state import steady_metrics

MICRO_PROFILES: Final = ("layered-prefill-v1", "vllm-0.24")
OPEN_LOOP_SEEDS: Final = 5
"""Draws of arrivals and lengths where arrivals are random; one elsewhere."""

Metrics = dict[str, float | None]


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


@dataclass(frozen=True, slots=True)
class Task:
    """A run that cases need.

    Attributes:
        config: What to run.
        steady_batch: Batch of the steady state to measure; None: the whole run.
    """

    config: Config
    steady_batch: int | None

    @property
    def key(self) -> tuple[str, int | None]:
        """Equal for equal runs."""
        return config_sha256(self.config), self.steady_batch


def case_tasks(case: Case, seeds: int | None) -> list[list[Task]]:
    """The runs of a case: one list per seed 0, 1, ..., one task per rate.

    Args:
        case: A measured case.
        seeds: How many; None: ``OPEN_LOOP_SEEDS`` or, in a closed loop, one.
    """
    default = OPEN_LOOP_SEEDS if case.protocol.random_arrivals else 1
    setup = case.setup.settings()
    return [
        [
            Task(
                load_config(None, (), setup | settings | {"seed": seed}),
                case.protocol.steady_batch,
            )
            for settings in case.protocol.settings()
        ]
        for seed in range(seeds or default)
    ]


def needed_tasks(cases: Sequence[Case], seeds: int | None) -> list[Task]:
    """Every run the cases need, once."""
    tasks = (t for case in cases for runs in case_tasks(case, seeds) for t in runs)
    return list({task.key: task for task in tasks}.values())


def case_errors(
    cases: Sequence[Case],
    seeds: int | None = None,
    jobs: int | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Simulate every case by its protocol, under seeds 0, 1, ...

    One seed is one draw of arrivals and lengths, as a measurement is one run; the
    spread over seeds says how much a single run can tell.

    Args:
        cases: What to simulate.
        seeds: Runs of each case; see :func:`case_tasks`.
        jobs: Processes; None: one per core.
        on_done: Called as each run of :func:`needed_tasks` ends.

    Returns:
        One row per case and metric: case, kind (calibration or validation), group,
        metric, unit, model, gpu, num_gpus, engine, profile, scheduler, measured,
        predicted (median over seeds), lowest, highest, error (of the median), seeds,
        source, note.

    Raises:
        ConfigError: If a case cannot be run with the shipped data.
        SimulationError: If a scheduler breaks an invariant.
    """
    tasks = needed_tasks(cases, seeds)
    calls = [delayed(_run)(index, task) for index, task in enumerate(tasks)]
    runs: dict[tuple[str, int | None], Metrics] = {}
    workers = Parallel(n_jobs=jobs or cpu_count(), return_as="generator_unordered")
    for index, metrics in workers(calls):
        runs[tasks[index].key] = metrics
        on_done()
    return pd.DataFrame(
        [
            _row(case, measurement, _by_seed(case, measurement, seeds, runs))
            for case in cases
            for measurement in case.measurements
        ]
    )


def _run(index: int, task: Task) -> tuple[int, Metrics]:
    steady = task.steady_batch is not None
    recording = Recording.ITERATIONS if steady else Recording.REQUESTS
    result = run_config(task.config, recording=recording)
    summary = result.summary
    power_w = summary["mean_power_w"]
    metrics: Metrics = {
        key: value for key, value in summary.items() if isinstance(value, int | float)
    }
    metrics["power_per_gpu_w"] = (
        None if power_w is None else (power_w / summary["num_gpus"])
    )
    if task.steady_batch is not None:
        metrics |= steady_metrics(result, task.steady_batch)
    return index, metrics


def _by_seed(
    case: Case,
    measurement: Measurement,
    seeds: int | None,
    runs: Mapping[tuple[str, int | None], Metrics],
) -> list[float]:
    return [
        _predicted(measurement.metric, case, [runs[task.key] for task in tasks])
        for tasks in case_tasks(case, seeds)
    ]


def _predicted(metric: str, case: Case, runs: Sequence[Metrics]) -> float:
    if metric == SLO_RATE:
        sweep = case.protocol.settings()
        rates = np.array([run["workload.request_rate"] for run in sweep], np.float64)
        met = np.array([run["slo_attainment"] for run in runs], np.float64)
        return rate_at_attainment(rates, met)
    value = runs[0].get(metric)
    return math.nan if value is None else value


def _row(
    case: Case, measurement: Measurement, by_seed: Sequence[float]
) -> dict[str, Any]:
    setup, predicted = case.setup, median(by_seed)
    return {
        "case": case.id,
        "kind": CALIBRATION if case.is_calibration(measurement) else VALIDATION,
        "group": case.group(measurement.metric),
        "metric": measurement.metric,
        "unit": measurement.unit,
        "model": setup.model,
        "gpu": setup.gpu,
        "num_gpus": setup.num_gpus,
        "engine": setup.engine,
        "profile": setup.shipped_profile,
        "scheduler": setup.scheduler,
        "measured": measurement.value,
        "predicted": predicted,
        "lowest": min(by_seed),
        "highest": max(by_seed),
        "error": predicted / measurement.value - 1.0,
        "seeds": len(by_seed),
        "source": case.source,
        "note": case.note,
    }
