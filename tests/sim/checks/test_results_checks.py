"""Every law of results can fail: one number is changed, and that law says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from sim.build_cluster import build_cluster
from sim.build_pools import alike
from sim.checks.results import RESULT_CHECKS, Finished, check_result
from sim.config_file import load_config
from sim.errors import InvariantError
from sim.results import RunResult, run_result
from sim.runner import prepare
from sim.table import Table
from tests.sim.test_results import BUSY


@pytest.fixture(scope="module")
def done() -> Finished:
    """Rejections, preemptions, missed limits, two replicas; one output of one token."""
    prepared = prepare(load_config(None, BUSY))
    config, machine, workload = prepared.config, prepared.machine, prepared.workload
    first, *rest = workload.requests
    workload = replace(workload, requests=(replace(first, output_tokens=1), *rest))
    run = build_cluster(config, machine, workload).run(workload.requests)
    result = run_result(config, machine, workload, run)
    return Finished(alike(machine), workload, run, result)


Spoils = Callable[[RunResult], dict[str, Any]]


def summary(key: str, change: Callable[[Any], Any]) -> Spoils:
    return lambda result: {
        "summary": result.summary | {key: change(result.summary[key])}
    }


def cell(table: str, column: str, change: Callable[[Any], Any]) -> Spoils:
    """Change the first cell of a column that holds a number."""

    def spoil(result: RunResult) -> dict[str, Any]:
        frame: pd.DataFrame = getattr(result, table).copy()
        row = frame[column].first_valid_index()
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = change(frame.loc[row, column])
        return retold(result, table, frame)

    return spoil


def retold(result: RunResult, table: str, frame: pd.DataFrame) -> dict[str, Any]:
    """The result with a frame in the place of one of its tables."""
    columns = {str(name): column.to_numpy() for name, column in frame.items()}
    return {"tables": replace(result.tables, **{table: Table(columns)})}


def more(value: float) -> float:
    return value + 1


def a_bit_more(value: float) -> float:
    return value * (1 + 1e-8)


SPOILED: dict[str, dict[str, Spoils]] = {
    "metric-identities": {
        **{
            name: cell("requests", name, a_bit_more)
            for name in ("ttft_ms", "tpot_ms", "e2el_ms", "max_itl_ms")
        },
        "one token has no TPOT": lambda result: retold(
            result,
            "requests",
            result.requests.assign(tpot_ms=result.requests["tpot_ms"].fillna(0.0)),
        ),
        "met_slo": cell("requests", "met_slo", lambda met: not met),
        "attainment": summary("slo_attainment", lambda value: value + 1 / 30),
        "percentiles": summary("p5_itl_ms", lambda value: 10 * value),
        **{
            f"mean {name}": summary(f"mean_{name}_ms", a_bit_more)
            for name in ("ttft", "tpot", "itl", "e2el")
        },
    },
    "run-totals": {
        **{
            name: summary(name, more)
            for name in (
                *("num_prompts", "failed", "rejected", "total_input_tokens"),
                *("preemptions", "iterations", "hbm_bytes"),
            )
        },
        **{
            name: summary(name, a_bit_more)
            for name in (
                *("duration", "energy_j", "energy_idle_j", "mean_power_w"),
                *("request_throughput", "output_throughput"),
            )
        },
        "energy by iteration": cell("iterations", "energy_j", more),
        "power over time": cell("timeseries", "power_w", more),
    },
    "utilisation": {
        "extrapolated": summary("extrapolated_fraction", lambda _: 1.01),
        "attainment": summary("slo_itl_attainment", lambda _: -0.01),
        "KV cache": cell("timeseries", "kv_cache_usage_perc", lambda _: 1.01),
    },
    "provenance": {
        name: summary(name, lambda value: f"{value}0")
        for name in (
            *("seed", "scheduler", "version"),
            *("config_sha256", "workload_sha256", "calibration_sha256"),
        )
    },
}


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        pytest.param(name, spoil, id=f"{name}: {what}")
        for name, spoils in SPOILED.items()
        for what, spoil in spoils.items()
    ],
)
def test_a_spoiled_result_breaks_exactly_that_law(
    name: str, spoil: Spoils, done: Finished
) -> None:
    """The unspoiled result passes."""
    check_result(done)
    spoiled = replace(done, result=replace(done.result, **spoil(done.result)))
    with pytest.raises(InvariantError) as caught:
        check_result(spoiled)
    assert caught.value.invariant == name


def test_power_beyond_the_cap_breaks_utilisation(done: Finished) -> None:
    """The same run on boards that may draw a fifth as much."""
    machine = done.machines.machine
    power = replace(machine.power, cap_w=machine.power.cap_w / 5)
    weak = replace(done, machines=alike(replace(machine, power=power)))
    with pytest.raises(InvariantError, match=r"utilisation broken: power_w / cap"):
        check_result(weak)


def test_every_law_of_results_has_been_broken() -> None:
    """No law without a way to break it."""
    assert set(SPOILED) == set(RESULT_CHECKS)
