"""How many KV tokens fit beside a model's weights."""

from __future__ import annotations

import math

from calibration.hardware import Gpu
from calibration.kernels.model_kernels import Deployment
from sim.errors import ConfigError

_ABSORBED_BYTES = 2  # bfloat16 in every weight format


def kv_cache_tokens(gpu: Gpu, deployment: Deployment, utilization: float) -> int:
    """KV capacity of a replica in tokens.

    As vLLM sizes it: ``utilization`` of HBM, less weights, collectives' buffers,
    context and workspaces, over the bytes of a token. Weights are taken as split
    evenly over the group, but for what latent attention keeps whole on every GPU.
    Data-parallel ranks hold their own requests, unless all hold all contexts.

    Raises:
        ConfigError: If the weights alone do not fit.
    """
    shape, tp = deployment.model, deployment.tp
    usable = math.floor(gpu.hbm_bytes * utilization)
    usable -= gpu.reserved_bytes(deployment.gpus)
    free = usable - weight_bytes_per_gpu(deployment)
    if free <= 0:
        weights = _weight_bytes(deployment)
        raise ConfigError(
            f"model.name = {shape.name}: does not fit in memory:"
            f" {weights / 1e9:.1f} GB of {deployment.dtype} weights on"
            f" {deployment.gpus} x {gpu.name},"
            f" which have {max(usable, 0) * deployment.gpus / 1e9:.1f} GB for them"
        )
    copies = max(tp // shape.num_kv_heads, 1)
    per_token = shape.kv_bytes_per_token(deployment.kv_dtype) * copies / tp
    ranks = 1 if deployment.contexts_everywhere else deployment.dp
    return int(free / per_token) * ranks


def weight_bytes_per_gpu(deployment: Deployment) -> int:
    """Weights on one GPU of a replica.

    Attention is copied to every data-parallel rank, experts are not.
    """
    weights, tp = _weight_bytes(deployment), deployment.tp
    if deployment.dp == 1 and deployment.expert_copies == 1:
        return weights // tp
    routed = deployment.model.weight_bytes(deployment.dtype).expert
    experts = round(routed * deployment.expert_copies)
    return (weights - routed) // tp + experts // deployment.gpus


def _weight_bytes(deployment: Deployment) -> int:
    """Weights of a tensor-parallel group, with what each of its GPUs keeps whole."""
    weights = deployment.model.weight_bytes(deployment.dtype).total
    return weights + deployment.tp * _latent_bytes(deployment)


def _latent_bytes(deployment: Deployment) -> int:
    """Bytes of latent attention on each GPU beyond an even share of its weights.

    The projections to the latents are not split, and decodes use a bfloat16 copy of
    the expansion of this GPU's heads (vLLM ``process_weights_after_loading`` of MLA).
    """
    shape, tp = deployment.model, deployment.tp
    if shape.latent is None:
        return 0
    whole = shape.replicated_attention_bytes(deployment.dtype) * (tp - 1) // tp
    n, k = shape.latent.expansion(shape.num_heads // tp)
    return shape.num_layers * (whole + n * k * _ABSORBED_BYTES)
