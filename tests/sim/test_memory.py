"""Memory of a GPU by hand, and machines that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from calibration.memory_fit import token_activation_bytes
from sim.build import build_machine
from sim.cli import app
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.memory import check_memory, memory_note, memory_of
from sim.runner import run_config
from sim.studies.worker import simulate

LLAMA = ("model.name=meta-llama/Llama-3.1-8B", "parallel.tensor_parallel_size=2")


def test_a_dense_model_by_hand() -> None:
    """Llama 3.1 8B on two GPUs, hidden size 4096, FFN of 14336, 32 heads of 128.

    A token keeps residual and hidden state and 3 x 7168 values of the FFN. 256
    requests have 128,256 logits each, in bfloat16 and float32. 8192 tokens wait with
    residual and hidden state. A KV token is 2 x 32 layers x 8 heads x 128, of which
    each GPU has half.
    """
    config = load_config(None, [*LLAMA, "engine.kv_cache_tokens=32000"])
    fit = memory_of(config, build_machine(config))
    assert fit.activation_bytes == 8192 * 2 * (2 * 4096 + 3 * 7168) + 256 * 128256 * 6
    assert fit.parked_bytes == 8192 * 2 * 4096 * 2
    assert fit.kv_bytes == 32000 * 2 * 32 * 4 * 128 * 2
    assert fit.weight_bytes == pytest.approx(8.03e9, rel=1e-3)  # half of 8.03 G x 2
    assert "8.0 weights" in memory_note(fit)


def test_experts_keep_rows_top_k_times() -> None:
    """Qwen3-30B-A3B, two GPUs: 8 x (2048 of the result + 384 activated) and a row.

    With whole experts a GPU has half of the pairs, each of the whole width 768.
    """
    split = build_machine(load_config(None, [])).deployment
    assert token_activation_bytes(split) == 2 * (2 * 2048 + 8 * (2048 + 384) + 2048)
    settings = ["parallel.expert_parallel_size=2"]
    whole = build_machine(load_config(None, settings)).deployment
    assert token_activation_bytes(whole) == 2 * (2 * 2048 + 4 * (2048 + 768) + 2048)


def test_latent_attention_keeps_expanded_keys() -> None:
    """DeepSeek-R1 on 8 GPUs: 16 heads of 192 + 128, twice, and the latents."""
    machine = build_machine(
        load_config(
            None,
            [
                *("model.name=deepseek-ai/DeepSeek-R1", "cluster.gpu=h200_sxm"),
                *("cluster.gpus_per_node=8", "parallel.tensor_parallel_size=8"),
            ],
        )
    )
    attention = 1536 + 576 + 2 * 16 * (192 + 128)
    routed = 8 * (7168 + 256) + 7168
    assert token_activation_bytes(machine.deployment) == 2 * (
        2 * 7168 + max(attention, routed)
    )


def test_parts_fill_the_share_that_is_configured() -> None:
    """Weights, KV cache and reserve come to 0.9 of the capacity, but for a block."""
    config = load_config(None, [])
    machine = build_machine(config)
    fit = memory_of(config, machine)
    block = machine.model.kv_bytes_per_token("bfloat16") * 16
    assert 0 <= 0.9 * fit.hbm_bytes - fit.needed_bytes < block
    chunked = load_config(None, ["engine.scheduler=chunked-prefill"])
    assert memory_of(chunked, machine).parked_bytes == 0
    assert "parked" not in memory_note(memory_of(chunked, machine))


def test_the_result_tells_the_parts() -> None:
    config = load_config(None, ["workload.num_requests=1"])
    summary = run_config(config).summary
    fit = memory_of(config, build_machine(config))
    assert summary["gpu_kv_cache_bytes"] == fit.kv_bytes
    assert summary["gpu_parked_bytes"] == fit.parked_bytes == 8192 * 2 * 2048 * 2


def test_the_largest_kv_cache_fits_and_one_token_more_does_not() -> None:
    """Believed up to the whole memory beside the weights."""
    machine = build_machine(load_config(None, []))
    fit = memory_of(load_config(None, []), machine)
    per_token = machine.model.kv_bytes_per_token("bfloat16") // 2
    most = (fit.hbm_bytes - fit.weight_bytes) // per_token
    check_memory(load_config(None, [f"engine.kv_cache_tokens={most}"]), machine)
    with pytest.raises(ConfigError, match=f"must be <= {most}: the memory of 2 x"):
        simulate(load_config(None, [f"engine.kv_cache_tokens={most + 1}"]))


IMPOSSIBLE = {
    "TP over more GPUs than a node has": ("parallel.tensor_parallel_size=4",),
    "replicas over more GPUs than there are": ("parallel.replicas=2",),
    "EP that does not divide the experts": (
        *("cluster.gpus_per_node=8", "parallel.tensor_parallel_size=8"),
        *("parallel.expert_parallel_size=8", "model.num_experts=12"),
    ),
    "EP that is not the group": (
        *("cluster.gpus_per_node=8", "parallel.tensor_parallel_size=8"),
        "parallel.expert_parallel_size=3",
    ),
    "weights that do not fit": ("model.name=Qwen/Qwen3-235B-A22B",),
    "KV cache that does not fit": ("engine.kv_cache_tokens=100000000",),
    "activations that do not fit": (
        "engine.max_num_batched_tokens=1000000",
        "engine.gpu_memory_utilization=0.99",
    ),
    "a link of no bandwidth": ("cluster.link_bandwidth_scale=0.0",),
    "memory of no bandwidth": ("cluster.hbm_bandwidth_scale=0.0",),
    "a link of next to no bandwidth": (
        "engine.fidelity=kernel",
        "cluster.link_bandwidth_scale=1e-200",
    ),
}


@pytest.mark.parametrize("settings", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_machines_are_one_line_with_key_and_value(
    settings: tuple[str, ...], tmp_path: Path
) -> None:
    """The command turns the error into exit code 2; nothing is written."""
    command = ["run", "--out", str(tmp_path / "out")]
    for setting in settings:
        command += ["--set", setting]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, ConfigError)
    message = str(result.exception)
    assert "\n" not in message
    assert " = " in message
    assert not (tmp_path / "out").exists()
