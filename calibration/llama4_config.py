"""Llama 4's configuration in the keys of other families.

Llama 4 names things its own way (transformers, ``models/llama4``): the language model
stands in ``text_config``; ``intermediate_size`` is the width of an expert and of the
shared one beside it, ``intermediate_size_mlp`` that of dense layers; layers whose
``no_rope_layers`` is 1 have rotary embeddings and attend inside chunks of
``attention_chunk_size`` tokens, the others, every fourth, attend to everything.

A chunk is taken as a sliding window of as many tokens, as the public tables profile it:
the same up to one chunk, up to twice the keys beyond. The norm of queries and keys has
no weights and is left out (0.1 ms an iteration).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_FULL_EVERY: Final = 4  # default of no_rope_layer_interval
_MOST_LAYERS: Final = 1_000
_KINDS: Final = ("full_attention", "sliding_attention")
"""By value of ``no_rope_layers``."""


def plain_keys(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keys of a ``config.json``, those of Llama 4 in the words of other families.

    Values are not checked here; wrong ones come out as wrong values of those keys.

    Args:
        values: the parsed ``config.json`` of any model.
    """
    text = values.get("text_config")
    if values.get("model_type") == "llama4" and isinstance(text, Mapping):
        values = {**values, **text}
    if values.get("model_type") != "llama4_text":
        return values
    return {
        **values,
        "n_shared_experts": 1,
        "moe_intermediate_size": values.get("intermediate_size"),
        "intermediate_size": values.get("intermediate_size_mlp"),
        "use_qk_norm": False,
        **_attention(values),
        **_dense_layers(values),
    }


def _layers(values: Mapping[str, Any]) -> range:
    layers = values.get("num_hidden_layers")
    if isinstance(layers, int) and 0 < layers <= _MOST_LAYERS:
        return range(layers)
    return range(0)


def _attention(values: Mapping[str, Any]) -> dict[str, Any]:
    chunk = values.get("attention_chunk_size")
    if chunk is None:
        return {}
    every = values.get("no_rope_layer_interval", _FULL_EVERY)
    rotary = values.get("no_rope_layers")
    if not rotary and isinstance(every, int) and every > 0:
        rotary = [int((layer + 1) % every != 0) for layer in _layers(values)]
    kinds: object = False
    if isinstance(rotary, list) and all(flag in (0, 1) for flag in rotary):
        kinds = [_KINDS[int(flag)] for flag in rotary]
    return {"sliding_window": chunk, "layer_types": kinds}


def _dense_layers(values: Mapping[str, Any]) -> dict[str, Any]:
    routed = values.get("moe_layers")
    if not isinstance(routed, list):
        return {}
    dense = [layer for layer in _layers(values) if layer not in routed]
    return {"mlp_only_layers": dense, "interleave_moe_layer_step": 1}
