"""Bytes and FLOPs of a model, as a step cost needs them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWork:
    """Bytes and FLOPs of a model, over all GPUs of a replica.

    Attributes:
        num_layers: Layers.
        windowed_before: Layers with a sliding window among the first n, for every n.
        window: Sliding window of those layers, in tokens.
        layer_weight_bytes: Weights of a layer without routed experts, as read by all
            GPUs together (replicated parts count once per GPU).
        expert_bytes: Weights of one expert in one layer.
        head_weight_bytes: LM head.
        row_activation_bytes: Activations one row reads and writes in a layer.
        row_flops: Dense FLOPs of one row in a layer, experts included.
        head_flops: FLOPs of one row of logits.
        pair_flops: Attention FLOPs per query-key pair in a layer, all heads.
        kv_bytes: Keys and values of one token in one layer, all GPUs.
        all_reduce_bytes: Link bytes of one row in one all-reduce, all GPUs.
        gather_bytes: Link bytes of gathering one row of logits, all GPUs.
        reductions: All-reduces per layer.
    """

    num_layers: int
    windowed_before: tuple[int, ...]
    window: int
    layer_weight_bytes: int
    expert_bytes: float
    head_weight_bytes: int
    row_activation_bytes: int
    row_flops: int
    head_flops: int
    pair_flops: int
    kv_bytes: int
    all_reduce_bytes: int
    gather_bytes: int
    reductions: int = 2


def attended_pairs(prefix: int, tokens: int, window: int) -> int:
    """Query-key pairs of a causal chunk of ``tokens`` after ``prefix``.

    With a sliding window (> 0) each query sees at most ``window`` keys, itself
    included.
    """
    if not window or prefix + tokens <= window:
        return tokens * prefix + tokens * (tokens + 1) // 2
    growing = max(min(window - prefix, tokens), 0)
    full = tokens - growing
    return growing * prefix + growing * (growing + 1) // 2 + full * window
