"""Kernel fidelity against the closed form, and what overlap changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sim.build import Machine, build_machine
from sim.build_fidelity import kernel_pricer
from sim.checks.machine import check_schedule
from sim.cli import app
from sim.config_file import load_config
from sim.config_multiplex import MULTIPLEXED
from sim.errors import ConfigError
from sim.machine.batch import Batch
from sim.machine.pricer import FidelityMeter, KernelPricer
from sim.machine.streams import COMMUNICATION, COMPUTE
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.runner import prepare, run_config, run_prepared
from sim.schedulers import SCHEDULERS
from sim.step_cost import HostTimes
from sim.step_parts import PARTS
from tests.cases import cases

MODELS = {
    "experts, TP 2": (),
    "dense, TP 1": (
        "model.name=Qwen/Qwen3-8B",
        "parallel.tensor_parallel_size=1",
    ),
    "windows, 4-bit, TP 2": ("model.name=openai/gpt-oss-20b",),
    "experts whole, another engine": (
        "parallel.expert_parallel_size=2",
        "calibration.profile=layered-prefill-v1",
    ),
    "latent attention, leading layers": (
        "model.name=deepseek-ai/DeepSeek-R1",
        "cluster.gpu=h200_sxm",
        "cluster.gpus_per_node=8",
        "parallel.tensor_parallel_size=8",
    ),
    "faster links, slower HBM": (
        "cluster.link_bandwidth_scale=2.0",
        "cluster.hbm_bandwidth_scale=0.5",
    ),
}
KERNEL = "engine.fidelity=kernel"


def pricer(*settings: str, factor: float = 1.0) -> KernelPricer:
    config = load_config(None, [KERNEL, *settings])
    machine = build_machine(config)
    if factor != 1.0:
        profile = replace(machine.profile, kernel_factor=factor, host=_gaps(machine))
        machine = build_machine(config, profile)
    return kernel_pricer(config, machine, FidelityMeter(), check_schedule)


def _gaps(machine: Machine) -> HostTimes:
    """Host times that also have a part per layer and per request."""
    return replace(machine.profile.host, per_layer_ns=1234, per_sequence_ns=567)


def _runs() -> Iterator[Any]:
    """Every model under every policy; a third of them in the normal suite."""
    for i, (model, settings) in enumerate(MODELS.items()):
        for k, scheduler in enumerate(sorted({*SCHEDULERS} - {MULTIPLEXED})):
            marks = [pytest.mark.long] if (i + k) % 3 else []
            name = f"{model}-{scheduler}"
            yield pytest.param(settings, scheduler, marks=marks, id=name)


@pytest.mark.parametrize(("settings", "scheduler"), list(_runs()))
def test_a_run_without_overlap_is_that_of_the_closed_form(
    settings: tuple[str, ...], scheduler: str
) -> None:
    """Every request, iteration, byte and joule."""
    load = [
        *("workload.num_requests=4", "workload.request_rate=20.0"),
        *("workload.dataset=random", "workload.random_output_len=6"),
        *("workload.random_input_len=1500", "workload.random_range_ratio=0.5"),
        f"engine.scheduler={scheduler}",
    ]
    if scheduler == "chunked-prefill":
        load.append("engine.max_num_batched_tokens=512")
    config = load_config(None, [*load, *settings])
    closed = run_config(config)
    kernels = run_config(load_config(None, [*load, *settings, KERNEL]), check=True)
    assert kernels.requests.equals(closed.requests)
    assert kernels.iterations.equals(closed.iterations)
    assert kernels.summary["fidelity_difference"] == 0.0
    assert kernels.summary["energy_j"] == closed.summary["energy_j"]
    told = {"fidelity", "kernel_events", "iterations_s", "closed_form_s"}
    told |= {"fidelity_difference", "hidden_communication_fraction", "config_sha256"}
    changed = {k for k, v in closed.summary.items() if v != kernels.summary[k]}
    assert changed <= told


@st.composite
def plans(draw: st.DrawFn) -> tuple[StepPlan, int, int]:
    """Layered or not, of a model with 48 layers; some batches large enough to halve."""
    chunks = draw(st.lists(st.integers(1, 900), max_size=3))
    prefill = tuple(
        PrefillChunk(i, draw(st.integers(0, 3000)), tokens)
        for i, tokens in enumerate(chunks)
    )
    first, last = sorted(draw(st.sets(st.integers(0, 48), min_size=2, max_size=2)))
    bounds = [(0, first, ()), (first, last, prefill), (last, 48, ())]
    spans = tuple(LayerSpan(a, b, c) for a, b, c in bounds if a < b)
    decoding = draw(st.integers(0 if chunks else 1, 200))
    return StepPlan(spans), decoding, decoding * draw(st.integers(1, 4000))


@cases(6)
@given(plans(), st.sampled_from([1.0, 0.9173, 1.271]))
def test_any_plan_takes_the_time_of_the_closed_form(
    plan: tuple[StepPlan, int, int], factor: float
) -> None:
    """With gaps per layer and a kernel factor too, which is rounded once."""
    model = PRICERS.setdefault(factor, pricer(factor=factor))
    closed = model._closed_form.price(*plan)
    assert model.price(*plan) == closed


PRICERS: dict[object, KernelPricer] = {}


@cases(6)
@given(plans(), st.sampled_from(["tp-all-reduce", "two-batch"]))
def test_overlap_keeps_the_machines_laws(
    plan: tuple[StepPlan, int, int], overlap: str
) -> None:
    """Checked inside; no stream is faster than its kernels alone, none idles in all."""
    model = PRICERS.setdefault(overlap, pricer(f"engine.overlap={overlap}"))
    schedule = model.schedule(*plan)
    total = sum(k.duration_ns for k in schedule.kernels)
    longest = max(
        sum(k.duration_ns for k in schedule.kernels if k.stream == stream)
        for stream in (COMPUTE, COMMUNICATION)
    )
    assert longest <= schedule.horizon_ns
    slowed = sum(schedule.ends_ns) - sum(schedule.starts_ns) - total
    assert schedule.horizon_ns <= total + slowed
    cost = model.price(*plan)
    assert 0 <= cost.wait_ns <= cost.duration_ns


LONG_PROMPT = StepPlan((LayerSpan(0, 32, (PrefillChunk(0, 0, 8192),)),))
DENSE = ("model.name=meta-llama/Llama-3.1-8B", "parallel.tensor_parallel_size=2")


@pytest.mark.parametrize("overlap", ["tp-all-reduce", "two-batch"])
def test_a_long_prompt_of_a_dense_model_gains_from_overlap(overlap: str) -> None:
    """Its GEMMs are bound by arithmetic, so halves cost little.

    It cannot gain more than the collectives took.
    """
    model = pricer(f"engine.overlap={overlap}", *DENSE)
    closed = model._closed_form.price(LONG_PROMPT, 0, 0)
    cost = model.price(LONG_PROMPT, 0, 0)
    collectives = closed.wait_ns
    assert closed.duration_ns - collectives < cost.duration_ns < closed.duration_ns
    assert cost.wait_ns < closed.wait_ns
    assert cost[6:12] == closed[6:12]  # bytes and FLOPs


def test_small_batches_run_whole() -> None:
    """31 decodes, or 511 rows with prompts: vLLM's thresholds."""
    assert not Batch(31, 100).worth_halving
    assert Batch(32, 100).worth_halving
    assert not Batch(11, 100, ((0, 500),)).worth_halving
    assert Batch(12, 100, ((0, 500),)).worth_halving


def test_halves_of_a_batch_by_hand() -> None:
    """7 decodes and chunks of 10 and 20: 19 rows of 37 go first.

    They are 4 decodes, the first chunk and 5 tokens of the second.
    """
    batch = Batch(7, 70, ((100, 10), (0, 20)))
    assert batch.halves() == (
        Batch(4, 40, ((100, 10), (0, 5))),
        Batch(3, 30, ((5, 15),)),
    )


def test_overlap_needs_kernel_fidelity_and_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs engine\\.fidelity"):
        load_config(None, ["engine.overlap=two-batch"])
    small = ["workload.num_requests=1", KERNEL, "engine.overlap=two-batch"]
    command = ["run", "--trace", "--out", str(tmp_path / "out")]
    for setting in small:
        command += ["--set", setting]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, ConfigError)
    assert "--trace" in str(result.exception)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="--trace"):
        run_prepared(prepare(load_config(None, small)), trace=True)


@pytest.mark.parametrize(
    "placed", [["moe.placement=linear"], ["moe.communication=ep_home"]]
)
def test_experts_placed_rank_by_rank_are_not_listed_kernel_by_kernel(
    placed: list[str],
) -> None:
    config = load_config(None, [KERNEL, "parallel.expert_parallel_size=2", *placed])
    with pytest.raises(ConfigError, match="rank by rank"):
        prepare(config)


def test_a_trace_without_overlap_has_kernels_that_fill_every_iteration() -> None:
    config = load_config(None, ["workload.num_requests=1", KERNEL])
    result = run_prepared(prepare(config), trace=True)
    parts = [name for name in result.steps if name in {f"{p}_ns" for p in PARTS}]
    spans = result.steps.groupby("iteration")
    lasted = spans["end_ns"].first() - spans["start_ns"].first()
    assert (spans[parts].sum().sum(axis=1) == lasted).all()
    assert result.trace is not None


@pytest.mark.parametrize("what", ["link", "hbm"])
def test_a_machine_without_bandwidth_is_refused(what: str) -> None:
    config = load_config(
        None, [KERNEL, f"cluster.{what}_bandwidth_scale=1e-300", "seed=1"]
    )
    with pytest.raises(ConfigError, match="leaves less than 1 byte/s"):
        kernel_pricer(config, build_machine(load_config(None, [])), FidelityMeter())


def test_the_terminal_says_by_how_much_it_differs(tmp_path: Path) -> None:
    command = ["run", "--out", str(tmp_path), "--set", "workload.num_requests=2"]
    result = CliRunner().invoke(app, [*command, "--set", KERNEL])
    assert "kernel fidelity, overlap none" in result.output
    assert "(+0.00%)" in result.output
    assert "kernel fidelity" not in CliRunner().invoke(app, command).output
