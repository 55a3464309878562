"""Bytes and FLOPs of a deployed model, from its shape."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from calibration.kernels.model_kernels import Deployment
from calibration.model_shape import ModelShape
from sim.model_work import LatentWork, LayerKind, ModelWork

_ACTIVATION_BYTES = 2  # bfloat16


def model_work(
    deployment: Deployment,
    elementwise_row_bytes: Callable[[bool], int],
    absorbed_chunk_tokens: int = 0,
) -> ModelWork:
    """What a step moves and computes, over all GPUs of a replica.

    Args:
        deployment: The model, its formats and its split.
        elementwise_row_bytes: Bytes per row of memory-bound kernels in a layer, per
            GPU; called with whether the layer is of the leading kind.
        absorbed_chunk_tokens: Longest chunk that attends to latents as they are.
    """
    shape, tp = deployment.model, deployment.tp
    windowed = accumulate((w > 0 for w in shape.layer_windows), initial=0)
    head = shape.vocab_size * shape.hidden_size
    kv_copies = max(tp // shape.num_kv_heads, 1)
    return ModelWork(
        num_layers=shape.num_layers,
        kinds=_kinds(deployment, elementwise_row_bytes),
        windowed_before=tuple(windowed),
        window=shape.sliding_window,
        expert_bytes=shape.expert_bytes(deployment.dtype) if shape.is_moe else 0.0,
        head_weight_bytes=deployment.dp * head * _ACTIVATION_BYTES,
        head_flops=2 * head,
        pair_flops=_pair_flops(shape),
        kv_bytes=shape.kv_bytes_per_token_layer(deployment.kv_dtype) * kv_copies,
        # A ring moves 2 (n - 1) / n of the message in and out of each of n GPUs.
        all_reduce_bytes=2 * (tp - 1) * shape.hidden_size * _ACTIVATION_BYTES,
        # Every GPU receives the other GPUs' shares of the vocabulary.
        gather_bytes=(tp - 1) * shape.vocab_size * _ACTIVATION_BYTES,
        latent=_latent_work(shape, absorbed_chunk_tokens),
    )


def _kinds(
    deployment: Deployment, elementwise_row_bytes: Callable[[bool], int]
) -> tuple[LayerKind, ...]:
    """The layers with experts, or all of a dense model, and the dense ones beside."""
    shape = deployment.model
    counts = {False: shape.num_layers - len(shape.dense_layers)}
    if shape.dense_layers:
        counts[True] = len(shape.dense_layers)
    kinds = []
    for leading, layers in counts.items():
        of_kind = (
            (layer in shape.dense_layers) == leading
            for layer in range(shape.num_layers)
        )
        weights, flops = _layer_work(deployment, layers, leading=leading)
        moved = elementwise_row_bytes(leading) * deployment.tp
        moved += _gemm_activations(shape, deployment.tp, leading=leading)
        kinds.append(
            LayerKind(
                before=tuple(accumulate(of_kind, initial=0)),
                weight_bytes=deployment.dp * weights,
                row_activation_bytes=moved,
                row_flops=flops,
                leading=leading,
            )
        )
    return tuple(kinds)


def _layer_work(
    deployment: Deployment, layers: int, *, leading: bool
) -> tuple[int, int]:
    """Weight bytes read by all GPUs and FLOPs per row of one of ``layers`` layers."""
    shape, tp = deployment.model, deployment.tp
    weights, params = shape.weight_bytes(deployment.dtype), shape.params()
    read = weights.attention // shape.num_layers
    read += shape.replicated_attention_bytes(deployment.dtype) * (tp - 1)
    active = params.attention / shape.num_layers
    if leading or not shape.is_moe:
        read += weights.dense_ffn // layers
        return read, round(2 * (active + params.dense_ffn / layers))
    read += weights.shared_expert // layers
    read += weights.router // layers * tp  # replicated on every GPU
    routed = params.expert * shape.top_k / shape.num_experts
    active += (params.router + params.shared_expert + routed) / layers
    return read, round(2 * active)


def _pair_flops(shape: ModelShape) -> int:
    if shape.latent:
        return shape.num_heads * shape.latent.expanded_pair_flops
    return 4 * shape.num_heads * shape.head_dim


def _latent_work(shape: ModelShape, absorbed_chunk_tokens: int) -> LatentWork | None:
    latent, heads = shape.latent, shape.num_heads
    if latent is None:
        return None
    expanded = heads * (latent.query_dim + latent.value_dim)
    return LatentWork(
        absorbed_chunk_tokens=absorbed_chunk_tokens,
        absorbed_pair_flops=heads * latent.absorbed_pair_flops,
        expand_flops=heads * latent.expand_flops,
        expand_bytes=2 * expanded * _ACTIVATION_BYTES,  # written, then read
    )


def _gemm_activations(shape: ModelShape, tp: int, *, leading: bool) -> int:
    """Bytes one row's matrix products read and write in a layer, over all GPUs."""
    hidden = shape.hidden_size
    elements = _attention_activations(shape, tp)
    if leading or not shape.is_moe:
        elements += 2 * hidden * tp + 3 * shape.intermediate_size
        return elements * _ACTIVATION_BYTES
    elements += shape.top_k * (2 * hidden * tp + 3 * shape.moe_intermediate_size)
    if shape.shared_intermediate_size:
        elements += 2 * hidden * tp + 3 * shape.shared_intermediate_size
    return elements * _ACTIVATION_BYTES


def _attention_activations(shape: ModelShape, tp: int) -> int:
    hidden, latent = shape.hidden_size, shape.latent
    if latent:
        # Every GPU has the latents; heads are split.
        latents = 2 * latent.q_lora_rank + latent.cache_width
        heads = shape.num_heads * (latent.query_dim + latent.value_dim)
        return (2 * hidden + latents) * tp + heads
    queries = shape.num_heads * shape.head_dim
    keys = shape.num_kv_heads * shape.head_dim
    return 2 * hidden * tp + 2 * queries + 2 * keys
