"""How many KV tokens fit beside a model's weights."""

from __future__ import annotations

import math

from calibration.hardware import Gpu
from calibration.kernels.model_kernels import Deployment
from sim.errors import ConfigError
from sim.stages import Stage

_ABSORBED_BYTES = 2  # bfloat16 in every weight format


def kv_cache_tokens(gpu: Gpu, deployment: Deployment, utilization: float) -> int:
    """KV capacity of a replica in tokens.

    As vLLM sizes it: ``utilization`` of HBM, less weights, collectives' buffers,
    context and workspaces, over the bytes of a token. Weights are taken as split
    evenly over the group, but for what latent attention keeps whole on every GPU.
    Data-parallel ranks hold their own requests, unless all hold all contexts. Stages
    of a pipeline hold all requests, in their own layers; the fullest decides, for block
    tables are the same on all (vLLM ``get_kv_cache_configs``).

    Raises:
        ConfigError: If the weights alone do not fit.
    """
    usable = math.floor(gpu.hbm_bytes * utilization)
    usable -= gpu.reserved_bytes(deployment.replica_gpus)
    ranks = 1 if deployment.contexts_everywhere else deployment.dp
    tokens = []
    for stage in deployment.stages:
        free = usable - weight_bytes_per_gpu(deployment, stage)
        if free <= 0:
            raise _too_heavy(gpu, deployment, stage, max(usable, 0))
        tokens.append(int(free / token_bytes_per_gpu(deployment, stage)) * ranks)
    return min(tokens)


def _too_heavy(
    gpu: Gpu, deployment: Deployment, stage: Stage, usable: int
) -> ConfigError:
    """Weights of a stage, or of the whole model, do not fit."""
    shape, gpus = deployment.model, deployment.gpus
    part = ""
    if deployment.pp > 1:
        part = f" in layers {stage.first} to {stage.last - 1}"
    return ConfigError(
        f"model.name = {shape.name}: does not fit in memory:"
        f" {_weight_bytes(deployment, stage) / 1e9:.1f} GB of {deployment.dtype}"
        f" weights{part} on {gpus} x {gpu.name},"
        f" which have {usable * gpus / 1e9:.1f} GB for them"
    )


def token_bytes_per_gpu(deployment: Deployment, stage: Stage) -> float:
    """KV bytes of a token on each GPU of a stage."""
    shape, tp = deployment.model, deployment.tp
    copies = max(tp // shape.num_kv_heads, 1)
    layer = shape.kv_bytes_per_token_layer(deployment.kv_dtype)
    return stage.layers * layer * copies / tp


def weight_bytes_per_gpu(deployment: Deployment, stage: Stage) -> int:
    """Weights on one GPU of a stage.

    Attention is copied to every data-parallel rank, experts are not.
    """
    weights, tp = _weight_bytes(deployment, stage), deployment.tp
    if deployment.dp == 1 and deployment.expert_copies == 1:
        return weights // tp
    routed = deployment.model.weight_bytes(deployment.dtype).expert
    experts = round(routed * deployment.expert_copies)
    return (weights - routed) // tp + experts // deployment.gpus


def _weight_bytes(deployment: Deployment, stage: Stage) -> int:
    """Weights of a tensor-parallel group, with what each of its GPUs keeps whole."""
    weights = stage_weight_bytes(deployment, stage)
    return weights + deployment.tp * stage.layers * _latent_bytes(deployment)


def stage_weight_bytes(deployment: Deployment, stage: Stage) -> int:
    """Weights of a stage, each counted once; of all stages they are the model's.

    The first stage has the embedding, the last final norm and LM head, or a copy of the
    embedding where it is the head (vLLM gives both ends one).
    """
    shape = deployment.model
    weights = shape.weight_bytes(deployment.dtype)
    first, last, layers = stage.first, stage.last, shape.num_layers
    norm = weights.norm // (2 * layers + 1)  # two in a layer, and the final one
    total = _share(weights.attention, first, last, layers) + 2 * norm * stage.layers
    dense = shape.dense_before
    total += _share(weights.dense_ffn, dense[first], dense[last], dense[-1])
    moe = tuple(n - before for n, before in enumerate(dense))
    for routed in (weights.router, weights.expert, weights.shared_expert):
        total += _share(routed, moe[first], moe[last], moe[-1])
    total += weights.embedding * stage.embeds
    if stage.heads:
        total += norm + weights.lm_head
        tied = shape.tie_word_embeddings and not stage.embeds
        total += weights.embedding * tied
    return total


def _share(amount: int, first: int, last: int, layers: int) -> int:
    """Layers ``first`` to before ``last`` of what is spread evenly over ``layers``."""
    if not layers:
        return 0
    return amount * last // layers - amount * first // layers


def _latent_bytes(deployment: Deployment) -> int:
    """Bytes of a layer's latent attention on each GPU beyond an even share of weights.

    The projections to the latents are not split, and decodes use a bfloat16 copy of
    the expansion of this GPU's heads (vLLM ``process_weights_after_loading`` of MLA).
    """
    shape, tp = deployment.model, deployment.tp
    if shape.latent is None:
        return 0
    whole = shape.replicated_attention_bytes(deployment.dtype) * (tp - 1) // tp
    n, k = shape.latent.expansion(shape.num_heads // tp)
    return whole + n * k * _ABSORBED_BYTES
