"""Replicas that are pipelines: whole runs, memory, layer groups, bad machines."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from calibration.kernels.model_kernels import Deployment
from calibration.memory import stage_weight_bytes, weight_bytes_per_gpu
from calibration.models import model
from sim.build import build_machine
from sim.build_fidelity import check_traceable
from sim.cli import app
from sim.config import Config
from sim.config_errors import ConfigKeyError
from sim.config_file import load_config
from sim.config_multiplex import MULTIPLEXED
from sim.errors import ConfigError
from sim.memory import memory_of
from sim.plan import LayerSpan, StepPlan
from sim.runner import prepare, run_config
from sim.schedulers import SCHEDULERS
from sim.schedulers.layer_groups import layer_groups
from sim.stages import pipeline_stages
from sim.step import NUM_COUNTS, decode_joules
from sim.studies.min_replicas import sized
from sim.studies.worker import simulate
from tests.sim.pricing import QUICK, Scenario, scenarios, serve

PP2 = {"parallel.pipeline_parallel_size": 2, "cluster.gpus_per_node": 4}
LLAMA = {"model.name": "meta-llama/Llama-3.1-8B"}
SHORT = {"workload.num_requests": 25, "workload.request_rate": 6.0}


def config(*settings: dict[str, Any]) -> Config:
    merged = {key: value for each in settings for key, value in each.items()}
    return load_config(None, (), merged)


@pytest.mark.parametrize("scheduler", sorted({*SCHEDULERS} - {MULTIPLEXED}))
def test_every_scheduler_serves_on_a_pipeline(scheduler: str) -> None:
    """Under all laws of ``sim.checks``; KV blocks scarce, so some are evicted."""
    settings = {"engine.scheduler": scheduler, "engine.kv_cache_tokens": 40_000}
    result = run_config(config(PP2, SHORT, settings), check=True)
    assert result.summary["completed"] == 25
    assert result.summary["num_gpus"] == 4


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@QUICK
@given(scenario=scenarios(max_replicas=2))
def test_plans_of_every_scheduler_respect_stages(name: str, scenario: Scenario) -> None:
    """A span that prefills in some layers only lies inside one stage."""
    ends = (1, scenario.at.num_layers)
    at = replace(scenario.at, stage_ends=ends)
    served = serve(name, replace(scenario, at=at))
    assert not any(engine.has_work for engine in served.engines)
    for recorder in served.recorders:
        for step in recorder.steps:
            layers = step.prefill_layers
            if name in ("layered-prefill", "adaptive-layered-prefill") and layers:
                assert layers[1] <= at.stage_end(layers[0])


@QUICK
@given(st.integers(1, 100), st.integers(1, 8), st.integers(1, 40))
def test_layer_groups_never_cross_stages(layers: int, stages: int, groups: int) -> None:
    """They cover the layers, one per stage at least, of about the same size.

    No group could be split instead of a larger one.
    """
    stages = min(stages, layers)
    ends = tuple(stage.last for stage in pipeline_stages(layers, stages))
    found = layer_groups(layers, min(groups, layers), ends)
    bounds = [0, *(last for _, last in found)]
    assert list(found) == list(pairwise(bounds))
    assert bounds[-1] == layers
    assert set(ends) <= set(bounds)
    assert len(found) == max(min(groups, layers), stages)


def test_layer_groups_by_hand() -> None:
    """Layers 0-15, 16-31, 32-46: four groups, of 16 layers as 8 + 8, and the rest."""
    assert layer_groups(47, 4, (16, 32, 47)) == ((0, 8), (8, 16), (16, 32), (32, 47))
    assert layer_groups(48, 1, (24, 48)) == ((0, 24), (24, 48))


MODELS = ("Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-R1")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_stages_hold_the_model_once(name: str, tied: bool, stages: int) -> None:
    """Every weight lies in one stage, but an embedding that is the LM head in two."""
    shape = replace(model(name), tie_word_embeddings=tied)
    at = Deployment(
        model=shape, dtype="bfloat16", kv_dtype="bfloat16", tp=2, ep=1, pp=stages
    )
    weights = shape.weight_bytes("bfloat16")
    copies = weights.embedding if tied and stages > 1 else 0
    held = sum(stage_weight_bytes(at, stage) for stage in at.stages)
    assert held == weights.total + copies


def test_the_fullest_stage_decides_what_fits() -> None:
    """Llama 3.1 8B, 32 layers on 3 stages of one GPU: 11, 11 and 10 layers.

    The first has the embedding too: 128,256 x 4096 weights of 2 bytes. A KV token is 11
    layers x 2 x 8 heads x 128 x 2 bytes there.
    """
    settings = {
        "parallel.tensor_parallel_size": 1,
        "parallel.pipeline_parallel_size": 3,
        "cluster.gpus_per_node": 3,
    }
    at = config(LLAMA, settings)
    machine = build_machine(at)
    stages = machine.deployment.stages
    assert [stage.layers for stage in stages] == [11, 11, 10]
    heaviest, heavy = (
        weight_bytes_per_gpu(machine.deployment, stage) for stage in stages[:2]
    )
    assert heaviest - heavy == 128_256 * 4096 * 2
    usable = int(85_899_345_920 * 0.9) - machine.gpu.reserved_bytes(3)
    assert machine.num_blocks == int((usable - heaviest) / (11 * 2 * 8 * 128 * 2)) // 16
    fit = memory_of(at, machine)
    assert fit.weight_bytes == heaviest
    assert fit.kv_bytes == machine.num_blocks * 16 * 11 * 2 * 8 * 128 * 2


@pytest.mark.parametrize("profile", ["vllm-0.24", "layered-prefill-v1"])
@pytest.mark.parametrize("decoding", [1, 3, 40])
def test_rounds_of_decodes_cost_what_each_costs_alone(
    profile: str, decoding: int
) -> None:
    """Every amount of every round, joules too, bit by bit."""
    machine = build_machine(config(PP2, {"calibration.profile": profile}))
    plan = StepPlan((LayerSpan(0, machine.model.num_layers),))
    first, steps = 1003 * decoding, 20
    many = machine.pricer.price_decodes(decoding, first, steps)
    joules = decode_joules([(many, steps)])
    for i in range(steps):
        one = machine.pricer.price(plan, decoding, first + i * decoding)
        counts = [c if isinstance(c, int) else int(c[i]) for c in many.counts]
        assert counts == list(one[:NUM_COUNTS])
        assert joules[i].tolist() == list(one[NUM_COUNTS:])


def test_points_of_a_study_share_no_price_of_other_micro_batches() -> None:
    """Machines that differ in the budget of a micro-batch only."""
    for budget in (512, 16_384):
        few = {"workload.num_requests": 6}
        at = config(PP2, few, {"engine.max_num_batched_tokens": budget})
        assert simulate(at).summary == run_config(at).summary


def test_a_run_says_how_layers_are_split(tmp_path: Path) -> None:
    """And that memory is that of the fullest stage."""
    settings = {**PP2, "workload.num_requests": 2}
    sets = [word for k, v in settings.items() for word in ("--set", f"{k}={v}")]
    done = CliRunner().invoke(app, ["run", "--out", str(tmp_path), *sets])
    assert done.exit_code == 0, done.output
    assert "pipeline of 2 stages x 2 GPUs, 24 + 24 layers" in done.output
    assert "4 x h100_sxm" in done.output


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"parallel.pipeline_parallel_size": 2},
            "parallel.pipeline_parallel_size = 2: needs 2 groups of 2 GPUs, more than"
            " the nodes hold: 1 of 2 GPUs",
        ),
        (
            {**PP2, "cluster.gpus_per_node": 3},
            "parallel.pipeline_parallel_size = 2: needs 2 groups of 2 GPUs, more than"
            " the nodes hold: 1 of 3 GPUs",
        ),
        (
            {**PP2, "parallel.replicas": 2},
            "parallel.replicas = 2: must be <= 1, as many replicas of 4 GPUs as the"
            " nodes hold",
        ),
        (
            {**PP2, "parallel.expert_parallel_size": 4},
            "parallel.expert_parallel_size = 4: must be 1 with"
            " parallel.pipeline_parallel_size > 1",
        ),
        (
            {**PP2, "engine.fidelity": "kernel"},
            'engine.fidelity = "kernel": must be "iteration" with'
            " parallel.pipeline_parallel_size > 1",
        ),
        (
            {**PP2, "parallel.prefill_replicas": 1},
            "parallel.prefill_replicas = 1: must be none with"
            " parallel.pipeline_parallel_size > 1",
        ),
        (
            {"engine.num_micro_batches": 2},
            "engine.num_micro_batches = 2: needs parallel.pipeline_parallel_size > 1",
        ),
        (
            {"parallel.pipeline_parallel_size": 49, "cluster.gpus_per_node": 98},
            "parallel.pipeline_parallel_size = 49: must be <= 48, the layers of"
            " Qwen/Qwen3-30B-A3B",
        ),
        (
            {
                **{**PP2, "parallel.tensor_parallel_size": 1},
                "engine.gpu_memory_utilization": 0.8,
                "model.name": "meta-llama/Llama-3.1-70B",
            },
            "model.name = meta-llama/Llama-3.1-70B: does not fit in memory: 70.6 GB of"
            " bfloat16 weights in layers 0 to 39 on 1 x h100_sxm, which have 64.6 GB",
        ),
    ],
)
def test_pipelines_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    """One line with the key, its value and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        prepare(config(settings))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stages", "replicas", "nodes"), [(2, 2, 1), (2, 3, 2), (3, 1, 1), (5, 1, 2)]
)
def test_replicas_of_whole_stages_on_nodes_of_eight(
    stages: int, replicas: int, nodes: int
) -> None:
    """Stages of two GPUs: two replicas of 4, one of 6; one of 10 has two nodes."""
    one = config(
        {"parallel.pipeline_parallel_size": stages, "cluster.nodes": 2},
        {"cluster.gpus_per_node": 8},
    )
    cluster = one.cluster.model_copy(update={"nodes": 1})
    found = sized(one.model_copy(update={"cluster": cluster}), replicas)
    assert found.cluster.nodes == nodes


def test_traces_show_no_pipeline() -> None:
    """They draw one kernel after the other."""
    with pytest.raises(ConfigKeyError, match="must be 1 with --trace"):
        check_traceable(config(PP2))
