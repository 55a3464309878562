"""Any Hugging Face configuration: read what can be costed, refuse the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from calibration.hf_config import load_hf_config, parse_hf_config
from calibration.model_shape import ModelShape
from sim.errors import ConfigError

DENSE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}
MOE = {**DENSE, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def parse(values: dict[str, Any]) -> ModelShape:
    return parse_hf_config(values, "tiny", "config.json")


def test_hand_counted_dense_model() -> None:
    """Every parameter of a tiny tied model, counted by hand."""
    shape = parse({**DENSE, "tie_word_embeddings": True})
    params = shape.params()
    attention = 64 * 64 + 64 * 16 + 64 * 16 + 64 * 64
    assert params.attention == 4 * attention
    assert params.dense_ffn == 4 * 3 * 64 * 128
    assert (params.embedding, params.lm_head) == (64_000, 0)
    assert params.norm == 4 * 2 * 64 + 64
    assert params.router == params.expert == 0
    assert params.total == 4 * attention + 4 * 3 * 64 * 128 + 64_000 + 576


def test_hand_counted_moe_model() -> None:
    params = parse(MOE).params()
    assert params.expert == 4 * 8 * 3 * 64 * 32
    assert params.router == 4 * 64 * 8
    assert params.dense_ffn == 0
    assert params.lm_head == 64_000


@pytest.mark.parametrize(
    "key", ["num_experts", "num_local_experts", "n_routed_experts"]
)
def test_the_names_of_the_number_of_experts(key: str) -> None:
    values = {k: v for k, v in MOE.items() if k != "num_experts"} | {key: 16}
    assert parse(values).num_experts == 16


def test_biases_and_norms_of_families() -> None:
    """Qwen2 has Q, K, V biases, Qwen3 norms per head, `attention_bias` all four."""
    plain = parse(DENSE).params().attention
    extra = {
        kind: parse({**DENSE, "model_type": kind}).params().attention - plain
        for kind in ("qwen2", "qwen3")
    }
    assert extra == {"qwen2": 4 * (64 + 16 + 16), "qwen3": 4 * 2 * 8}
    biased = parse({**DENSE, "attention_bias": True}).params().attention
    assert biased - plain == 4 * (64 + 16 + 16 + 64)


def test_windows() -> None:
    """One window for all layers, Qwen's switch, or one kind per layer."""
    assert parse({**DENSE, "sliding_window": 16}).layer_windows == (16,) * 4
    off = {**DENSE, "sliding_window": 16, "use_sliding_window": False}
    assert parse(off).layer_windows == (0,) * 4
    last = {**off, "use_sliding_window": True, "max_window_layers": 3}
    assert parse(last).layer_windows == (0, 0, 0, 16)
    kinds = ["sliding_attention", "full_attention"] * 2
    mixed = parse({**DENSE, "sliding_window": 16, "layer_types": kinds})
    assert mixed.layer_windows == (16, 0, 16, 0)


def test_native_format() -> None:
    assert parse(DENSE).native_dtype == "bfloat16"
    fp8 = {**DENSE, "quantization_config": {"quant_method": "fp8"}}
    assert parse(fp8).native_dtype == "fp8"
    assert not parse(fp8).bf16_attention


def test_what_a_quantised_checkpoint_keeps() -> None:
    """Attention of all layers, by a pattern or one by one, or nothing that matters."""
    for names, kept in (
        (["lm_head", "model.layers.0.mlp.gate"], False),
        (["model.layers.3.mlp.down_proj", "self_attn"], True),
        ([f"model.layers.{layer}.self_attn.q_proj" for layer in range(4)], True),
    ):
        shape = parse({**DENSE, "quantization_config": fbgemm(names)})
        assert (shape.native_dtype, shape.bf16_attention) == ("fp8", kept)


def test_what_an_mxfp4_checkpoint_keeps_is_no_matter() -> None:
    """gpt-oss names attention too, but mxfp4 is of experts only, and fp8 is not its."""
    kept = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn"],
    }
    assert not parse({**MOE, "quantization_config": kept}).bf16_attention


def fbgemm(kept: object) -> dict[str, object]:
    return {"quant_method": "fbgemm_fp8", "modules_to_not_convert": kept}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_lora_rank": 512}, "qk_nope_head_dim = missing: must be an integer"),
        ({"first_k_dense_replace": 4}, "first_k_dense_replace = 4: .*from 0 to 3"),
        ({"index_topk": 2048}, "index_topk = 2048: sparse attention"),
        ({"decoder_sparse_step": 5}, "decoder_sparse_step = 5: .*from 1 to 4"),
        ({"mlp_only_layers": [4]}, "mlp_only_layers = a list: must name some of 4"),
        ({"mlp_only_layers": [0, 1, 2, 3]}, "mlp_only_layers = a list: must name"),
        (
            {"mlp_only_layers": [1, 3], "decoder_sparse_step": 2},
            "mlp_only_layers = a list: no layer is left for the experts",
        ),
        ({"n_shared_experts": -1}, "n_shared_experts = -1: .*from 0 to"),
        (
            {"shared_expert_intermediate_size": 64},
            "shared_expert_intermediate_size = 64: gated shared experts",
        ),
        ({"hidden_act": "gelu"}, 'hidden_act = "gelu": .*without gated SiLU'),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0: .*from 1 to"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000: .*to 1000"),
        ({"num_hidden_layers": 4.0}, "num_hidden_layers = 4.0: must be an integer"),
        ({"num_hidden_layers": True}, "num_hidden_layers = true: must be an integer"),
        ({"hidden_size": "64"}, 'hidden_size = "64": must be an integer'),
        ({"hidden_size": float("nan")}, "hidden_size = nan: must be an integer"),
        ({"num_key_value_heads": 3}, "num_key_value_heads = 3: must divide 8"),
        ({"num_attention_heads": 6}, "head_dim = missing: 6 heads do not divide 64"),
        ({"vocab_size": -1}, "vocab_size = -1: must be an integer"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok = 9: .*from 1 to 8"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings = .*true or false"),
        ({"layer_types": ["linear_attention"] * 4}, "layer_types = .*full_attention"),
        ({"layer_types": ["full_attention"]}, "layer_types = .*must be 4 times"),
        (
            {"quantization_config": {"quant_method": "awq"}},
            "allowed: fp8, fbgemm_fp8, mxfp4",
        ),
        (
            {"quantization_config": fbgemm("self_attn")},
            "modules_to_not_convert: no list",
        ),
        (
            {"quantization_config": fbgemm(["model.layers.1.self_attn.q_proj"])},
            "attention quantised in some layers only cannot be simulated",
        ),
    ],
)
def test_what_cannot_be_costed_is_refused(change: dict[str, Any], message: str) -> None:
    values = {**MOE, "num_key_value_heads": 2, **change}
    with pytest.raises(ConfigError, match=f"^config.json: {message}|{message}$"):
        parse(values)


@pytest.mark.parametrize(
    "key",
    [
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
        "num_experts_per_tok",
    ],
)
def test_a_missing_key_is_named(key: str) -> None:
    values = {k: v for k, v in MOE.items() if k != key}
    with pytest.raises(ConfigError, match=f"{key} = missing"):
        parse(values)


def test_windowed_layers_need_a_window() -> None:
    values = {**DENSE, "layer_types": ["sliding_attention"] * 4}
    with pytest.raises(ConfigError, match="sliding_window = missing"):
        parse(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "must hold a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b" " * 4_000_001, "too large"),
    ],
)
def test_a_broken_file_is_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refused:
        load_hf_config(path)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: cannot read: No such file"):
        load_hf_config(tmp_path)


def test_extra_keys_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**DENSE, "rope_theta": 1e6, "unheard_of": [1]}))
    assert load_hf_config(path).params() == parse(DENSE).params()
