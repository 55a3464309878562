"""What one layer consists of on one GPU: matrix products and memory-bound kernels."""

from __future__ import annotations

from calibration.model_shape import ModelShape

_ACTIVATION_BYTES = 2  # activations are bfloat16

Products = tuple[tuple[int, int], ...]
"""(n, k) of matrix products."""


def ffn_products(model: ModelShape, tp: int, *, leading: bool) -> Products:
    """Matrix products of a layer's rows after attention: router, shared or dense FFN.

    Args:
        model: Sizes of the model.
        tp: Tensor-parallel size.
        leading: Of the dense layers of a model with experts.
    """
    if not model.is_moe or leading:
        return _gated_products(model, model.intermediate_size // tp)
    router = (model.num_experts, model.hidden_size)
    if not model.shared_intermediate_size:
        return (router,)
    return (router, *_gated_products(model, model.shared_intermediate_size // tp))


def attention_products(model: ModelShape, tp: int) -> Products:
    """Projections of a layer's rows, the output projection last."""
    heads, hidden = model.num_heads // tp, model.hidden_size
    if model.latent:
        return model.latent.products(hidden, heads)
    queries = heads * model.head_dim
    keys = max(model.num_kv_heads // tp, 1) * model.head_dim
    return ((queries + 2 * keys, hidden), (hidden, queries))


def _gated_products(model: ModelShape, inner: int) -> Products:
    return ((2 * inner, model.hidden_size), (model.hidden_size, inner))


def elementwise(
    model: ModelShape, tp: int, *, leading: bool, inside: bool
) -> tuple[int, int]:
    """Memory-bound kernels of one layer, and the bytes they move per row.

    Args:
        model: Sizes of the model.
        tp: Tensor-parallel size.
        leading: Of the dense layers of a model with experts.
        inside: Those of attention are inside the times of its profiled modules.
    """
    # Two norms fused with the residual add: read both streams, write both.
    kernels, row_bytes = 2, 2 * 4 * model.hidden_size * _ACTIVATION_BYTES
    if not inside:
        passes, moved = _attention_passes(model, tp)
        kernels += passes
        row_bytes += moved
    inner = model.shared_intermediate_size
    if not model.is_moe or leading:
        inner = model.intermediate_size
    if inner:  # activation function
        kernels += 1
        row_bytes += 3 * (inner // tp) * _ACTIVATION_BYTES
    if model.shared_intermediate_size and not leading:
        kernels += 1  # outputs of shared and routed experts, added
        row_bytes += 3 * model.hidden_size * _ACTIVATION_BYTES
    return kernels, row_bytes


def ffn_elementwise(model: ModelShape, tp: int, *, leading: bool) -> tuple[int, int]:
    """Those of :func:`elementwise` that come after attention: norm, activation, sum."""
    kernels, row_bytes = elementwise(model, tp, leading=leading, inside=True)
    return kernels - 1, row_bytes - 4 * model.hidden_size * _ACTIVATION_BYTES


def _attention_passes(model: ModelShape, tp: int) -> tuple[int, int]:
    heads = model.num_heads // tp
    if model.latent:
        # Norms of the latents; rotary embedding of the queries' part and the key.
        norms = 2 if model.latent.q_lora_rank else 1
        rotated = (heads + 1) * model.latent.rope_dim
        moved = 2 * (model.latent.norms + rotated) * _ACTIVATION_BYTES
        return norms + 1, moved
    heads += max(model.num_kv_heads // tp, 1)
    per_pass = 2 * heads * model.head_dim * _ACTIVATION_BYTES
    passes = 2 if model.qk_norm else 1  # rotary embedding, and norms of q and k
    return passes, passes * per_pass
