"""Reading a Hugging Face ``config.json`` into a `ModelShape`, or saying why not.

Only what the simulator can cost is accepted: grouped-query or latent attention and a
gated SiLU feed-forward part, dense or with experts, in all layers or in some. Anything
else is refused by the key that gives it away: a wrong shape would give wrong answers
silently.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from calibration.latent_shape import LatentShape
from calibration.llama4_config import plain_keys
from calibration.model_shape import ModelShape
from sim.config_errors import clip, value_text
from sim.errors import ConfigError
from sim.input_file import read_bytes

_LARGEST_FILE_BYTES: Final = 4_000_000
_EXPERTS: Final = ("num_experts", "num_local_experts", "n_routed_experts")
_TOP_K: Final = ("num_experts_per_tok", "experts_per_token")
# Checkpoints in fp8; those of fbgemm_fp8 have a scale per row of weights.
_FP8: Final = ("fp8", "fbgemm_fp8")
_LAYER: Final = re.compile(r"layers\.(\d+)\.self_attn")
# Every how many layers there are experts: of Qwen, of Llama 4.
_STEP: Final = ("decoder_sparse_step", "interleave_moe_layer_step")
_WINDOW_KINDS: Final = {"full_attention": False, "sliding_attention": True}

# Key -> (values that mean nothing special, what any other value means).
_REFUSED: Final[Mapping[str, tuple[tuple[object, ...], str]]] = {
    "index_topk": ((None, 0), "sparse attention by an indexer"),
    "moe_layer_freq": ((None, 1), "dense layers between MoE layers"),
    "shared_expert_intermediate_size": ((None, 0), "gated shared experts"),
    "zero_expert_num": ((None, 0), "experts that compute nothing"),
    "linear_num_key_heads": ((None, 0), "linear attention"),
    "linear_attn_config": ((None,), "linear attention"),
    "is_encoder_decoder": ((None, False), "an encoder"),
    "hidden_act": (("silu",), "a feed-forward part without gated SiLU"),
    "hidden_activation": (("silu",), "a feed-forward part without gated SiLU"),
    "mlp_bias": ((None, False), "biases in the dense feed-forward part"),
}
# What a family's code does and its config.json does not say (Hugging Face transformers,
# models/<model_type>/modeling_<model_type>.py).
_FAMILY_FLAGS: Final[Mapping[str, Mapping[str, bool]]] = {
    "qwen2": {"qkv_bias": True},
    # The official fp8 checkpoints of Qwen3 have a scale per 128 x 128 block.
    "qwen3": {"qk_norm": True, "fp8_block": True},
    "qwen3_moe": {"qk_norm": True, "fp8_block": True},
    "gpt_oss": {"ffn_bias": True, "attention_sinks": True},
}


class _Config:
    """A config.json with checked access; every refusal names file, key and value."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values = values
        self._source = clip(source, 200)

    def error(self, key: str, expected: str) -> ConfigError:
        value = value_text(self.values[key]) if key in self.values else "missing"
        return ConfigError(f"{self._source}: {key} = {value}: {expected}")

    def count(
        self, key: str, largest: int, default: int | None = None, *, smallest: int = 1
    ) -> int:
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        # bool is an int too
        if type(value) is int and smallest <= value <= largest:
            return value
        raise self.error(key, f"must be an integer from {smallest} to {largest}")

    def flag(self, key: str) -> bool:
        value = self.values.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        return value

    def first_of(self, keys: tuple[str, ...]) -> str | None:
        found = (key for key in keys if self.values.get(key) is not None)
        return next(found, None)


def load_hf_config(path: Path) -> ModelShape:
    """The shape of the model a ``config.json`` describes.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        ConfigError: if it cannot be read or describes a model that is not supported.
    """
    file = path / "config.json" if os.path.isdir(path) else path
    shown = clip(str(file), 200)
    try:
        values = json.loads(read_bytes(file, _LARGEST_FILE_BYTES))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{shown}: not JSON: {clip(str(error))}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{shown}: must hold a JSON object")
    return parse_hf_config(values, str(path), str(file))


def parse_hf_config(values: Mapping[str, Any], name: str, source: str) -> ModelShape:
    """The shape of the model described by the keys of a Hugging Face configuration.

    Args:
        values: the parsed ``config.json``; keys it does not need are ignored.
        name: name of the model in outputs.
        source: what error messages call the file.

    Raises:
        ConfigError: if a key is missing, absurd or of an unsupported architecture.
    """
    values = plain_keys(values)
    config = _Config(values, source)
    for key, (plain, meaning) in _REFUSED.items():
        if key in values and not _is_one_of(values[key], plain):
            raise config.error(key, f"{meaning} cannot be simulated")
    layers = config.count("num_hidden_layers", 1_000)
    bias = config.flag("attention_bias")
    family = values.get("model_type")
    flags = _FAMILY_FLAGS.get(family, {}) if isinstance(family, str) else {}
    return ModelShape(
        name=name,
        num_layers=layers,
        **_attention(config),
        **_feed_forward(config, layers),
        vocab_size=config.count("vocab_size", 10_000_000),
        truncated_sampling=config.flag("truncated_sampling"),
        tie_word_embeddings=config.flag("tie_word_embeddings"),
        layer_windows=_windows(config, layers),
        max_position_embeddings=config.count("max_position_embeddings", 1_000_000_000),
        native_dtype=_native_dtype(config),
        qkv_bias=bias or flags.get("qkv_bias", False),
        output_bias=bias,
        ffn_bias=flags.get("ffn_bias", False),
        qk_norm=config.flag("use_qk_norm") or flags.get("qk_norm", False),
        attention_sinks=flags.get("attention_sinks", False),
        fp8_block=_fp8_block(config, flags.get("fp8_block", False)),
        bf16_attention=_bf16_attention(config, layers),
        # DeepSeek-V3's balancing without an auxiliary loss (arXiv 2412.19437, 2.1.2).
        routing_bias=values.get("topk_method") == "noaux_tc",
    )


def _is_one_of(value: object, plain: tuple[object, ...]) -> bool:
    return any(type(value) is type(known) and value == known for known in plain)


def _attention(config: _Config) -> dict[str, Any]:
    hidden = config.count("hidden_size", 1_000_000)
    heads = config.count("num_attention_heads", 10_000)
    if config.values.get("kv_lora_rank"):
        latent = _latent(config)
        return {
            "hidden_size": hidden,
            "num_heads": heads,
            "num_kv_heads": 1,
            "head_dim": latent.query_dim,
            "latent": latent,
        }
    kv_heads = config.count("num_key_value_heads", 10_000, default=heads)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"must divide {heads} query heads")
    if config.values.get("head_dim") is None and hidden % heads:
        raise config.error("head_dim", f"{heads} heads do not divide {hidden}")
    head_dim = config.count("head_dim", 10_000, default=hidden // heads)
    return {
        "hidden_size": hidden,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
    }


def _latent(config: _Config) -> LatentShape:
    if config.flag("attention_bias"):
        raise config.error(
            "attention_bias", "biases in latent attention cannot be simulated"
        )
    return LatentShape(
        q_lora_rank=config.count("q_lora_rank", 1_000_000, default=0, smallest=0),
        kv_lora_rank=config.count("kv_lora_rank", 1_000_000),
        nope_dim=config.count("qk_nope_head_dim", 10_000),
        rope_dim=config.count("qk_rope_head_dim", 10_000),
        value_dim=config.count("v_head_dim", 10_000),
    )


def _feed_forward(config: _Config, layers: int) -> dict[str, Any]:
    experts_key = config.first_of(_EXPERTS)
    if experts_key is None:
        width = config.count("intermediate_size", 10_000_000)
        return {
            "intermediate_size": width,
            "num_experts": 0,
            "top_k": 0,
            "moe_intermediate_size": 0,
        }
    experts = config.count(experts_key, 100_000)
    top_k_key = config.first_of(_TOP_K) or _TOP_K[0]
    top_k = config.count(top_k_key, experts)
    width_key = config.first_of(("moe_intermediate_size",)) or "intermediate_size"
    width = config.count(width_key, 10_000_000)
    dense = _dense_layers(config, layers)
    shared = config.count("n_shared_experts", 1_000, default=0, smallest=0)
    return {
        "intermediate_size": (
            config.count("intermediate_size", 10_000_000) if dense else 0
        ),
        "num_experts": experts,
        "top_k": top_k,
        "moe_intermediate_size": width,
        "dense_layers": dense,
        "shared_intermediate_size": shared * width,
    }


def _dense_layers(config: _Config, layers: int) -> tuple[int, ...]:
    """The layers without experts of a model that has some: first, named, or between."""
    first = config.count("first_k_dense_replace", layers - 1, default=0, smallest=0)
    step = config.count(config.first_of(_STEP) or _STEP[0], layers, default=1)
    named = config.values.get("mlp_only_layers") or []
    sound = isinstance(named, list) and set(map(type, named)) <= {int}
    if not sound or not set(named) < set(range(layers)):
        raise config.error("mlp_only_layers", f"must name some of {layers} layers")
    dense = tuple(
        layer
        for layer in range(layers)
        if layer < first or (layer + 1) % step or layer in named
    )
    if len(dense) == layers:
        raise config.error("mlp_only_layers", "no layer is left for the experts")
    return dense


def _windows(config: _Config, layers: int) -> tuple[int, ...]:
    """The attention window of every layer, 0 where attention is full."""
    kinds = config.values.get("layer_types")
    if kinds is not None:
        known = isinstance(kinds, list) and all(
            isinstance(kind, str) and kind in _WINDOW_KINDS for kind in kinds
        )
        if not known or len(kinds) != layers:
            allowed = " or ".join(_WINDOW_KINDS)
            raise config.error("layer_types", f"must be {layers} times {allowed}")
        windowed = [_WINDOW_KINDS[kind] for kind in kinds]
    elif config.values.get("sliding_window") is None:
        windowed = [False] * layers
    elif "use_sliding_window" in config.values:
        # Qwen's rule: the first max_window_layers layers keep full attention.
        first = layers
        if config.flag("use_sliding_window"):
            first = config.count("max_window_layers", 1_000)
        windowed = [layer >= first for layer in range(layers)]
    else:
        windowed = [True] * layers
    if not any(windowed):
        return (0,) * layers
    window = config.count("sliding_window", 1_000_000_000)
    return tuple(window if limited else 0 for limited in windowed)


def _fp8_block(config: _Config, usual: bool) -> bool:
    """As the checkpoint says, else as the family's official fp8 checkpoints are."""
    quantisation = config.values.get("quantization_config")
    if not isinstance(quantisation, dict):
        return usual
    return quantisation.get("weight_block_size") is not None


def _bf16_attention(config: _Config, layers: int) -> bool:
    """Whether an fp8 checkpoint keeps attention as it was, in all layers or none."""
    quantisation = config.values.get("quantization_config")
    if not isinstance(quantisation, dict) or _native_dtype(config) != "fp8":
        return False
    names = quantisation.get("modules_to_not_convert")
    if not isinstance(names, list | None):
        raise config.error("quantization_config", "modules_to_not_convert: no list")
    kept = [str(name) for name in names or () if "self_attn" in str(name)]
    numbered = [_LAYER.search(name) for name in kept]
    whole = len({found[1] for found in numbered if found}) == layers
    if kept and all(numbered) and not whole:
        meaning = "attention quantised in some layers only cannot be simulated"
        raise config.error("quantization_config", meaning)
    if kept and config.values.get("kv_lora_rank"):
        meaning = "latent attention kept in bfloat16 cannot be simulated"
        raise config.error("quantization_config", meaning)
    return bool(kept)


def _native_dtype(config: _Config) -> str:
    quantisation = config.values.get("quantization_config")
    if quantisation is None:
        return "bfloat16"
    method = (
        quantisation.get("quant_method") if isinstance(quantisation, dict) else None
    )
    if method not in (*_FP8, "mxfp4"):
        allowed = ", ".join((*_FP8, "mxfp4"))
        raise config.error("quantization_config", f"quant_method: allowed: {allowed}")
    return "fp8" if method in _FP8 else str(method)
