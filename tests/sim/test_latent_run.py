"""DeepSeek-R1 served in fp8 on eight GPUs, from configuration to summary."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from calibration.models import model
from sim.build import Machine, build_machine
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.runner import run_config
from tests.calibration.test_latent_models import V2_LITE

EXPERT = 3 * 7168 * 2048  # weights, and bytes in fp8
HEAD = 129_280 * 7168


def settings(gpu: str, *more: str) -> list[str]:
    return [
        "model.name=deepseek-r1",
        f"cluster.gpu={gpu}",
        "cluster.gpus_per_node=8",
        "parallel.tensor_parallel_size=8",
        "calibration.profile=vllm-0.24",
        *more,
    ]


@cache
def machine(gpu: str) -> Machine:
    return build_machine(load_config(None, settings(gpu)))


@pytest.mark.parametrize("gpu", ["h200", "b200"])
def test_a_decode_iteration_by_hand(gpu: str) -> None:
    """Three dense layers, 58 with experts; 1 row of 9000 tokens, 8 experts touched."""
    found = machine(gpu)
    kernels, pricer = found.kernels, found.pricer
    cost = pricer.price(StepPlan((LayerSpan(0, 61),)), 1, 9000)
    attention = kernels.decode_attention(1, 9000, windowed=False).ns
    shared = attention + 2 * kernels.all_reduce(1, graph=True).ns
    dense = kernels.linear(1, leading=True).ns + kernels.elementwise(1, leading=True).ns
    rest = kernels.linear(1).ns + kernels.elementwise(1).ns + kernels.experts(1, 8.0).ns
    head = kernels.head(1, 1).ns + kernels.gather_logits(1).ns
    head += kernels.all_reduce(1, graph=True).ns
    by_hand = 61 * shared + 3 * dense + 58 * rest + head + 2_400_000
    assert cost.duration_ns == pytest.approx(by_hand, rel=1e-6)
    assert cost.extrapolated_ns == 0
    assert cost.expert_weight_bytes == pytest.approx(58 * 8 * EXPERT, rel=1e-6)
    # The latents of 9000 tokens and the new one, on each of 8 GPUs.
    assert cost.kv_bytes == 61 * 9001 * 576 * 2 * 8
    attention = 187_105_280 + 2048
    rows = 61 * attention + 3 * 9 * EXPERT + 58 * (9 * EXPERT + 7168 * 256 + 256)
    pairs = 61 * 9000 * 128 * 1088
    assert cost.flops == 2 * (rows + pairs + HEAD)
    # No faster than its bytes: a token of R1 reads at least 37 GB.
    moved = cost.expert_weight_bytes + cost.other_weight_bytes + cost.kv_bytes
    assert moved > 37e9
    assert cost.duration_ns > moved / (8 * found.gpu.hbm_bandwidth_bytes_per_s) * 1e9


def test_the_prefix_of_a_chunk_is_expanded_again() -> None:
    """600 tokens after 1000 in all layers: bytes and FLOPs beyond those of rows."""
    pricer = machine("b200").pricer
    chunk = PrefillChunk(0, 1000, 600)
    first = PrefillChunk(0, 0, 600)
    later, alone = (
        pricer.price(StepPlan((LayerSpan(0, 61, decode=False, prefill=(c,)),)), 0, 0)
        for c in (chunk, first)
    )
    assert later.kv_bytes - alone.kv_bytes == 61 * 1000 * 576 * 2 * 8
    pairs, expansion = 1000 * 600 * 320, 1000 * 512 * 256
    assert later.flops - alone.flops == 61 * 128 * 2 * (pairs + expansion)
    expanded = 61 * 1000 * 128 * 320 * 2 * 2
    assert later.activation_bytes - alone.activation_bytes == expanded
    assert later.duration_ns > alone.duration_ns


def test_groups_of_layers_add_up_to_the_whole_model() -> None:
    """Layered prefill meets dense layers in its first group only."""
    pricer, chunk = machine("h200").pricer, (PrefillChunk(0, 0, 2000),)
    whole = pricer.price(
        StepPlan((LayerSpan(0, 61, decode=False, prefill=chunk),)), 0, 0
    )
    parts = StepPlan(
        (
            LayerSpan(0, 2, decode=False, prefill=chunk),
            LayerSpan(2, 10, decode=False, prefill=chunk),
            LayerSpan(10, 61, decode=False, prefill=chunk),
        )
    )
    assert pricer.price(parts, 0, 0).other_weight_bytes == whole.other_weight_bytes
    first = StepPlan(
        (LayerSpan(0, 3, decode=False, prefill=chunk), LayerSpan(3, 61, decode=False))
    )
    assert pricer.price(first, 0, 0).expert_weight_bytes == 0
    last = StepPlan(
        (LayerSpan(0, 3, decode=False), LayerSpan(3, 61, decode=False, prefill=chunk))
    )
    cost = pricer.price(last, 0, 0)
    assert cost.expert_weight_bytes == whole.expert_weight_bytes > 0


@pytest.mark.parametrize("gpu", ["h200", "b200"])
def test_runs_of_decodes_are_priced_as_one_by_one(gpu: str) -> None:
    """The fast path gives the same integers as an iteration at a time."""
    pricer, plan = machine(gpu).pricer, StepPlan((LayerSpan(0, 61),))
    costs = pricer.price_decodes(24, 24 * 3000, 50)
    for step, duration_ns in enumerate(costs.duration_ns.tolist()):
        cost = pricer.price(plan, 24, 24 * (3000 + step))
        assert cost.duration_ns == duration_ns
        assert cost.kv_bytes == costs.counts[8][step]  # type: ignore[index]
        assert cost.flops == costs.counts[11][step]  # type: ignore[index]


@pytest.mark.parametrize("gpu", ["h200", "b200"])
@pytest.mark.parametrize("profile", ["vllm-0.24", "sglang-0.5"])
@pytest.mark.parametrize("scheduler", ["chunked-prefill", "layered-prefill"])
def test_deepseek_r1_is_served(gpu: str, profile: str, scheduler: str) -> None:
    """Every request finishes inside the profiled ranges, with energy and traffic."""
    more = (
        f"calibration.profile={profile}",
        f"engine.scheduler={scheduler}",
        "workload.num_requests=20",
        "workload.request_rate=1",
    )
    summary = run_config(load_config(None, settings(gpu, *more))).summary
    assert summary["completed"] == 20
    assert summary["extrapolated_fraction"] < 0.01
    # An iteration of one request reads 37 GB; so at least 2 ms on any of these.
    assert 2 < summary["mean_tpot_ms"] < 100
    assert 0.05 < summary["mean_ttft_ms"] / 1e3 < 10
    assert summary["energy_per_token_j"] > 0


def test_eight_h100_are_too_small() -> None:
    """681 GB of weights, with what every GPU keeps whole, on 8 x 80 GiB."""
    with pytest.raises(ConfigError, match=r"does not fit in memory: 681\.5 GB of fp8"):
        build_machine(load_config(None, settings("h100")))


def test_a100_is_refused_in_one_line(tmp_path: Path) -> None:
    """No kernel of latent attention was profiled there; any V2-style config.json."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(V2_LITE))
    names = (f"model.name={path}", "parallel.tensor_parallel_size=2")
    with pytest.raises(ConfigError, match="no kernel of latent attention") as refused:
        build_machine(load_config(None, settings("a100", *names)))
    assert "\n" not in str(refused.value)


def test_other_models_of_the_family_run_and_say_what_is_guessed(tmp_path: Path) -> None:
    """DeepSeek-V2-Lite: attention is profiled, its experts (64 of 1408) are not."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(V2_LITE))
    more = (
        f"model.name={path}",
        "parallel.tensor_parallel_size=2",
        "workload.num_requests=10",
        "workload.request_rate=2",
    )
    summary = run_config(load_config(None, settings("h100", *more))).summary
    assert summary["completed"] == 10
    assert 0.1 < summary["extrapolated_fraction"] < 0.9
    by_kernel = summary["extrapolated_experts_fraction"]
    assert by_kernel == pytest.approx(summary["extrapolated_fraction"], rel=0.2)


def test_the_hash_of_a_run_covers_the_tables_it_borrows() -> None:
    """Block-scaled GEMMs come from the pack beside vLLM's."""
    packs = [pack.pack for pack in machine("h200").kernels.packs]
    assert packs == ["h200_sxm", "h200_sxm.sglang"]
    assert model("deepseek-r1").name == machine("h200").model.name
