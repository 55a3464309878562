"""Llama 4: its words in those of others, and dense layers between MoE layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from calibration.hf_config import parse_hf_config
from calibration.kernels.layer_parts import ffn_products
from calibration.kernels.model_kernels import Deployment
from calibration.memory import stage_weight_bytes
from calibration.model_shape import ModelShape
from calibration.model_work import model_work
from calibration.models import model
from sim.build import build_machine
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.plan import LayerSpan, StepPlan

MAVERICK = model("meta-llama/Llama-4-Maverick-17B-128E-Instruct")
SCOUT = model("meta-llama/Llama-4-Scout-17B-16E-Instruct")
SERVED = Deployment(model=MAVERICK, dtype="fp8", kv_dtype="bfloat16", tp=8, ep=8)
ATTENTION = 2 * 5120 * (40 + 8) * 128
EXPERT = 3 * 5120 * 8192

# config.json of meta-llama/Llama-4-Maverick-17B-128E-Instruct, as packed in
# aiconfigurator-core 0.12.0, without keys of no concern here.
TEXT: dict[str, Any] = {
    "model_type": "llama4_text",
    "attention_bias": False,
    "attention_chunk_size": 8192,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 5120,
    "interleave_moe_layer_step": 2,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
    "max_position_embeddings": 1048576,
    "num_attention_heads": 40,
    "num_experts_per_tok": 1,
    "num_hidden_layers": 48,
    "num_key_value_heads": 8,
    "num_local_experts": 128,
    "rope_scaling": None,
    "use_qk_norm": False,
    "vocab_size": 202048,
}


def parse(**changes: object) -> ModelShape:
    values = {"model_type": "llama4", "text_config": {**TEXT, **changes}}
    return parse_hf_config(values, MAVERICK.name, "config.json")


def test_a_published_file_is_the_catalogue_entry() -> None:
    assert replace(parse(), truncated_sampling=True) == MAVERICK


def test_every_fourth_layer_attends_to_everything() -> None:
    assert MAVERICK.layer_windows == SCOUT.layer_windows == (8192, 8192, 8192, 0) * 12
    assert parse(no_rope_layers=[1, 0] * 24).layer_windows == (8192, 0) * 24
    assert parse(no_rope_layers=[]).layer_windows == MAVERICK.layer_windows
    assert parse(no_rope_layer_interval=2).layer_windows == (8192, 0) * 24
    assert parse(attention_chunk_size=None).layer_windows == (0,) * 48


def test_every_second_layer_of_maverick_has_experts() -> None:
    assert MAVERICK.dense_layers == tuple(range(0, 48, 2))
    assert (MAVERICK.num_moe_layers, SCOUT.num_moe_layers) == (24, 48)
    listed = parse(moe_layers=[3, 7, 47])
    assert sorted({*range(48)} - set(listed.dense_layers)) == [3, 7, 47]
    assert parse(interleave_moe_layer_step=1).dense_layers == ()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"no_rope_layers": [1, 2] * 24}, "layer_types = .*must be 48 times"),
        ({"no_rope_layers": [1, 0]}, "layer_types = .*must be 48 times"),
        ({"no_rope_layers": "all"}, "layer_types = .*must be 48 times"),
        ({"no_rope_layer_interval": 0}, "layer_types = .*must be 48 times"),
        ({"attention_chunk_size": -1}, "sliding_window = -1: must be an integer"),
        ({"moe_layers": []}, "mlp_only_layers = a list: must name some of 48"),
        ({"num_hidden_layers": "48"}, 'num_hidden_layers = "48": must be an integer'),
        ({"intermediate_size_mlp": None}, "intermediate_size = .*must be an integer"),
    ],
)
def test_what_is_wrong_is_refused(change: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        parse(**change)
    assert "\n" not in str(refused.value)


def test_a_file_without_its_language_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_hidden_layers = missing"):
        parse_hf_config({"model_type": "llama4", "text_config": 1}, "x", "config.json")


def test_work_of_both_kinds_of_layer_by_hand() -> None:
    """Of 128 experts a row meets one, and the shared one, or a dense part as wide."""
    rest, dense = model_work(SERVED, lambda _: 0).kinds
    assert (rest.leading, dense.leading) == (False, True)
    assert dense.before == tuple((n + 1) // 2 for n in range(49))
    assert rest.before == tuple(n // 2 for n in range(49))
    assert rest.row_flops == 2 * (ATTENTION + 128 * 5120 + 2 * EXPERT)
    assert dense.row_flops == 2 * (ATTENTION + 3 * 5120 * 16384)
    # fp8, but for the router, which every GPU holds.
    assert rest.weight_bytes == ATTENTION + EXPERT + 8 * 2 * 128 * 5120
    assert dense.weight_bytes == ATTENTION + 3 * 5120 * 16384


def test_products_of_both_kinds_of_layer() -> None:
    """On one of eight GPUs: router whole, shared expert and dense part split."""
    rest = ((128, 5120), (2 * 1024, 5120), (5120, 1024))
    assert ffn_products(MAVERICK, 8, leading=False) == rest
    assert ffn_products(MAVERICK, 8, leading=True) == ((2 * 2048, 5120), (5120, 2048))


def test_weights_of_uneven_stages_by_hand() -> None:
    """Of 48 layers on 5 stages; layers 9 to 18 are five of each kind."""
    served = replace(SERVED, dtype="bfloat16", pp=5)
    stages = served.stages
    assert [stage.layers for stage in stages] == [9, 10, 10, 10, 9]
    by_stage = [stage_weight_bytes(served, stage) for stage in stages]
    assert sum(by_stage) == MAVERICK.weight_bytes("bfloat16").total
    layer = ATTENTION + 2 * 5120
    routed = 128 * 5120 + 129 * EXPERT
    dense = 3 * 5120 * 16384
    assert by_stage[1] == 2 * (10 * layer + 5 * routed + 5 * dense)
    # Layers 0 to 8: four with experts, and the embedding.
    assert by_stage[0] == 2 * (9 * layer + 4 * routed + 5 * dense + 202_048 * 5120)


@pytest.mark.parametrize("fidelity", ["iteration", "kernel"])
def test_layers_add_up_to_the_model(fidelity: str) -> None:
    """Two spans of odd numbers of layers cost what one span of all layers does."""
    machine = build_machine(
        load_config(
            None,
            (),
            {
                **{"model.name": MAVERICK.name, "model.dtype": "fp8"},
                **{"cluster.gpu": "h200_sxm", "cluster.gpus_per_node": 8},
                "parallel.tensor_parallel_size": 8,
                "parallel.expert_parallel_size": 8,
                "engine.fidelity": fidelity,
            },
        )
    )
    whole = machine.pricer.price(StepPlan((LayerSpan(0, 48),)), 32, 32 * 20_000)
    halves = StepPlan((LayerSpan(0, 17), LayerSpan(17, 48)))
    parts = machine.pricer.price(halves, 32, 32 * 20_000)
    assert parts.duration_ns == pytest.approx(whole.duration_ns, rel=1e-6)
    assert parts.expert_weight_bytes == pytest.approx(whole.expert_weight_bytes)
    # 12 layers read all 20,000 tokens, 36 read 8192; all write one.
    tokens = 12 * 20_000 + 36 * 8192 + 48
    assert whole.kv_bytes == 32 * tokens * 2 * 8 * 128 * 2
