"""Iterations in detail against what the run itself recorded and priced."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from sim.build_cluster import build_cluster
from sim.config_file import load_config
from sim.runner import PreparedRun, prepare
from sim.shell.cluster import ClusterRun
from sim.step_parts import PARTS
from sim.steps import STEP_COLUMNS, Window, middle_window, steps_table
from sim.units import NS_PER_S
from tests.sim.test_results import BUSY

_TIMES = [f"{part}_ns" for part in PARTS]
_SMALL = ("workload.num_requests=12", "workload.request_rate=2")
_CASES = {
    "layered": (*_SMALL, "calibration.profile=layered-prefill-v1"),
    "chunked": (*_SMALL, "engine.scheduler=chunked-prefill"),
    "orca": (*_SMALL, "engine.scheduler=orca"),
    "static": (*_SMALL, "engine.scheduler=static"),
    "preemptions, two replicas": BUSY,
    "dense": (*_SMALL, "model.name=Qwen/Qwen3-8B", "calibration.profile=vllm-0.18"),
    "windows": (*_SMALL, "model.name=openai/gpt-oss-20b"),
}


def _run(
    overrides: tuple[str, ...], factor: float = 1.0
) -> tuple[PreparedRun, ClusterRun]:
    prepared = prepare(load_config(None, overrides))
    machine = prepared.machine
    machine.pricer._kernel_factor = machine.parts._factor = factor
    cluster = build_cluster(prepared.config, machine, prepared.workload)
    return prepared, cluster.run(prepared.workload.requests)


def _frame(
    prepared: PreparedRun, run: ClusterRun, window: Window | None = None
) -> pd.DataFrame:
    machine = prepared.machine
    layers = machine.model.num_layers
    return steps_table(run.logs, run.records, machine.parts, layers, window).frame


@pytest.mark.parametrize("factor", [1.0, 1.0371])
@pytest.mark.parametrize("case", _CASES)
def test_parts_add_up_to_the_priced_duration(case: str, factor: float) -> None:
    """Every iteration, to the nanosecond: plans, contexts and kernels are the run's."""
    prepared, run = _run(_CASES[case], factor)
    frame = _frame(prepared, run)
    steps = frame.groupby(["replica", "iteration"])
    assert len(steps) == sum(len(log) for log in run.logs)
    durations = steps["end_ns"].first() - steps["start_ns"].first()
    assert (steps[_TIMES].sum().sum(axis=1) == durations).all()
    assert (frame[_TIMES] >= 0).all(axis=None)


@pytest.mark.parametrize("case", _CASES)
def test_spans_cover_the_layers_and_the_prompts(case: str) -> None:
    prepared, run = _run(_CASES[case])
    frame = _frame(prepared, run)
    num_layers = prepared.machine.model.num_layers
    steps = frame.groupby(["replica", "iteration"])
    assert (steps["first_layer"].first() == 0).all()
    assert (steps["last_layer"].last() == num_layers).all()
    follows = frame["first_layer"] == frame["last_layer"].shift()
    assert (follows | (frame["first_layer"] == 0)).all()
    computed = frame["prefill_tokens"] * (frame["last_layer"] - frame["first_layer"])
    served = [record for record in run.records if record.rejected is None]
    tokens = sum(record.request.prompt_tokens for record in served)
    if not any(record.preemptions for record in served):
        assert computed.sum() == tokens * num_layers
    else:
        assert computed.sum() > tokens * num_layers


def test_layered_prefill_runs_prompts_through_one_group_at_a_time() -> None:
    frame = _frame(*_run(_CASES["layered"]))
    prefills = frame[frame["prefill_tokens"] > 0]
    layers = prefills["last_layer"] - prefills["first_layer"]
    assert prefills.groupby("iteration").size().max() == 1
    assert layers.max() < 48
    chunked = _frame(*_run(_CASES["chunked"]))
    prefills = chunked[chunked["prefill_tokens"] > 0]
    assert (prefills["last_layer"] - prefills["first_layer"] == 48).all()
    assert prefills["prefill_tokens"].max() <= 512


def test_a_window_holds_the_iterations_that_start_in_it() -> None:
    prepared, run = _run(_CASES["layered"])
    window = Window(2 * NS_PER_S, 3 * NS_PER_S)
    every, some = _frame(prepared, run), _frame(prepared, run, window)
    inside = every["start_ns"].between(window.start_ns, window.end_ns, "left")
    pd.testing.assert_frame_equal(some, every[inside].reset_index(drop=True))
    assert 0 < len(some) < len(every)


def test_the_middle_window_follows_the_arrivals_alone() -> None:
    _, run = _run(_CASES["layered"])
    record = run.records[0]
    late = [replace(record, arrival_ns=t * NS_PER_S) for t in (1, 125)]
    assert middle_window(late) == Window(62 * NS_PER_S, 72 * NS_PER_S)
    assert middle_window([]) == Window(0, 10 * NS_PER_S)


def test_no_iteration_in_the_window_leaves_the_columns() -> None:
    prepared, run = _run(_CASES["layered"])
    empty = _frame(prepared, run, Window(10**15, 10**15 + 1))
    assert list(empty.columns) == list(STEP_COLUMNS)
    assert empty.empty
