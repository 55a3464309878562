"""What fills the memory of one GPU: weights, KV cache, activations, parked ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from calibration.hardware import Gpu
from calibration.kernels.model_kernels import Deployment
from calibration.memory import kv_cache_tokens, weight_bytes_per_gpu

_ACTIVATION_BYTES: Final = 2  # bfloat16
# vLLM samples from a float32 copy of the logits that were gathered in bfloat16.
_LOGIT_BYTES: Final = 2 + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFit:
    """Bytes on one GPU.

    Activations are counted from the model's sizes, not measured; they live in the
    workspace that the catalogue reserves, as far as it reaches.

    Attributes:
        hbm_bytes: Capacity.
        weight_bytes: Weights.
        kv_bytes: KV cache.
        activation_bytes: Most that is alive at once in the largest iteration.
        parked_bytes: Hidden states that wait between layer groups.
        reserved_bytes: Context, graphs, workspaces and NCCL, of the catalogue.
        workspace_bytes: Part of it that activations may take.
    """

    hbm_bytes: int
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    parked_bytes: int
    reserved_bytes: int
    workspace_bytes: int

    @property
    def needed_bytes(self) -> int:
        """Everything; activations count beyond the reserved workspace only."""
        alive = self.activation_bytes + self.parked_bytes
        beyond = max(alive - self.workspace_bytes, 0)
        return self.weight_bytes + self.kv_bytes + self.reserved_bytes + beyond


def memory_fit(
    gpu: Gpu,
    deployment: Deployment,
    *,
    kv_tokens: int,
    batch_tokens: int,
    num_seqs: int,
    parked_tokens: int,
) -> MemoryFit:
    """Memory of one GPU of a replica, of the fullest stage of its pipeline.

    Args:
        gpu: With the capacity it has.
        deployment: The model and its split.
        kv_tokens: Tokens in the KV cache of the replica.
        batch_tokens: Most tokens of an iteration.
        num_seqs: Most requests in one.
        parked_tokens: Most prompt tokens that wait between layers from iteration to
            iteration, with hidden state and residual (layered prefill).
    """
    shape, tp = deployment.model, deployment.tp
    copies = max(tp // shape.num_kv_heads, 1)
    layer_bytes = shape.kv_bytes_per_token_layer(deployment.kv_dtype) * copies
    ranks = 1 if deployment.contexts_everywhere else deployment.dp
    logits = num_seqs * shape.vocab_size * _LOGIT_BYTES
    activations = batch_tokens * token_activation_bytes(deployment)
    return max(
        (
            MemoryFit(
                hbm_bytes=gpu.hbm_bytes,
                weight_bytes=weight_bytes_per_gpu(deployment, stage),
                kv_bytes=-(-kv_tokens * stage.layers * layer_bytes // (tp * ranks)),
                activation_bytes=activations + logits * stage.heads,
                parked_bytes=2 * shape.hidden_size * _ACTIVATION_BYTES * parked_tokens,
                reserved_bytes=gpu.reserved_bytes(deployment.replica_gpus),
                workspace_bytes=gpu.other_bytes,
            )
            for stage in deployment.stages
        ),
        key=lambda fit: fit.needed_bytes,
    )


def most_kv_tokens(gpu: Gpu, deployment: Deployment) -> int:
    """KV tokens that fit beside the weights with nothing else on the GPUs.

    Raises:
        ConfigError: If the weights alone do not fit.
    """
    bare = replace(gpu, other_bytes=0, nccl_bytes=((1, 0),))
    return kv_cache_tokens(bare, deployment, 1.0)


def token_activation_bytes(deployment: Deployment) -> int:
    """Activations of one token that are alive at once on one GPU, at their peak.

    Residual and hidden state, and either attention's queries, keys, values and output,
    or the FFN's. Routed experts keep their inputs and outputs apart, top-k times, in
    the two workspaces of vLLM's fused MoE kernel: one that the widened rows and the
    results take in turn, one for the activated rows.
    """
    shape = deployment.model
    widest = max(_attention_width(deployment), _ffn_width(deployment))
    return (2 * shape.hidden_size + widest) * _ACTIVATION_BYTES


def _attention_width(deployment: Deployment) -> int:
    shape, tp = deployment.model, deployment.tp
    heads = shape.num_heads // tp
    if shape.latent:
        latent = shape.latent
        expanded = 2 * heads * (latent.query_dim + latent.value_dim)
        return latent.q_lora_rank + latent.cache_width + expanded
    keys = max(shape.num_kv_heads // tp, 1)
    return 2 * (heads + keys) * shape.head_dim


def _ffn_width(deployment: Deployment) -> int:
    shape, tp = deployment.model, deployment.tp
    dense = 3 * max(shape.intermediate_size, shape.shared_intermediate_size) // tp
    if not shape.is_moe:
        return dense
    return max(dense, _routed_width(deployment) + shape.hidden_size)


def _routed_width(deployment: Deployment) -> int:
    shape, ep = deployment.model, deployment.ep
    inner = shape.moe_intermediate_size * ep // deployment.gpus
    both = max(2 * inner, shape.hidden_size) + inner
    return -(-shape.top_k * both // ep)
