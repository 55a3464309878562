"""Bytes and FLOPs of a deployed model, from its shape."""

from __future__ import annotations

from itertools import accumulate

from calibration.kernels.model_kernels import Deployment
from calibration.model_shape import ModelShape
from sim.model_work import ModelWork

_ACTIVATION_BYTES = 2  # bfloat16


def model_work(deployment: Deployment, elementwise_row_bytes: int) -> ModelWork:
    """What a step moves and computes, over all GPUs of a replica.

    Args:
        deployment: The model, its formats and its split.
        elementwise_row_bytes: Bytes per row of memory-bound kernels, per GPU.
    """
    shape, tp = deployment.model, deployment.tp
    weights, params = shape.weight_bytes(deployment.dtype), shape.params()
    layers = shape.num_layers
    router = weights.router // layers * tp  # replicated on every GPU
    active = params.attention + params.router + params.dense_ffn
    if shape.is_moe:
        active += params.expert * shape.top_k // shape.num_experts
    windowed = accumulate((w > 0 for w in shape.layer_windows), initial=0)
    head = shape.vocab_size * shape.hidden_size
    kv_copies = max(tp // shape.num_kv_heads, 1)
    return ModelWork(
        num_layers=layers,
        windowed_before=tuple(windowed),
        window=shape.sliding_window,
        layer_weight_bytes=(weights.attention + weights.dense_ffn) // layers + router,
        expert_bytes=shape.expert_bytes(deployment.dtype) if shape.is_moe else 0.0,
        head_weight_bytes=head * _ACTIVATION_BYTES,
        row_activation_bytes=elementwise_row_bytes * tp + _gemm_activations(shape, tp),
        row_flops=2 * active // layers,
        head_flops=2 * head,
        pair_flops=4 * shape.num_heads * shape.head_dim,
        kv_bytes=shape.kv_bytes_per_token_layer(deployment.kv_dtype) * kv_copies,
        # A ring moves 2 (n - 1) / n of the message in and out of each of n GPUs.
        all_reduce_bytes=2 * (tp - 1) * shape.hidden_size * _ACTIVATION_BYTES,
        # Every GPU receives the other GPUs' shares of the vocabulary.
        gather_bytes=(tp - 1) * shape.vocab_size * _ACTIVATION_BYTES,
    )


def _gemm_activations(shape: ModelShape, tp: int) -> int:
    """Bytes one row's matrix products read and write in a layer, over all GPUs."""
    queries = shape.num_heads * shape.head_dim
    keys = shape.num_kv_heads * shape.head_dim
    hidden = shape.hidden_size
    elements = 2 * hidden * tp + 2 * queries + 2 * keys
    if shape.is_moe:
        elements += shape.top_k * (2 * hidden * tp + 3 * shape.moe_intermediate_size)
    else:
        elements += 2 * hidden * tp + 3 * shape.intermediate_size
    return elements * _ACTIVATION_BYTES
