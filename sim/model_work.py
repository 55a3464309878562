"""Bytes and FLOPs of a model, as a step cost needs them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKind:
    """Layers of a model that cost the same for their rows.

    Attributes:
        before: Layers of this kind among the first n, for every n.
        weight_bytes: Weights of a layer without routed experts, as read by all GPUs
            together (replicated parts count once per GPU).
        row_activation_bytes: Activations one row reads and writes in a layer.
        row_flops: Dense FLOPs of one row in a layer, experts included.
        leading: These are the dense layers of a model with experts, which lead the
            others in most (DeepSeek) and alternate with them in Llama-4-Maverick.
    """

    before: tuple[int, ...]
    weight_bytes: int
    row_activation_bytes: int
    row_flops: int
    leading: bool = False

    def layers(self, first: int, last: int) -> int:
        """Layers of this kind from ``first`` (included) to ``last`` (excluded)."""
        return self.before[last] - self.before[first]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentWork:
    """What latent attention does beside attending to expanded keys and values.

    Attributes:
        absorbed_chunk_tokens: Longest chunk of a prompt that attends to the latents
            themselves, as every decode does; longer ones expand them first.
        absorbed_pair_flops: FLOPs per query-key pair in a layer then, all heads.
        expand_flops: FLOPs to expand the latent of one token in a layer, all heads.
        expand_bytes: Bytes of its keys and values, written and read, all heads.
    """

    absorbed_chunk_tokens: int
    absorbed_pair_flops: int
    expand_flops: int
    expand_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWork:
    """Bytes and FLOPs of a model, over all GPUs of a replica.

    Attributes:
        num_layers: Layers.
        kinds: Kinds of layer; every layer is of one.
        windowed_before: Layers with a sliding window among the first n, for every n.
        window: Sliding window of those layers, in tokens.
        expert_bytes: Weights of one expert in one layer.
        head_weight_bytes: LM head.
        head_flops: FLOPs of one row of logits.
        pair_flops: Attention FLOPs per query-key pair in a layer, all heads.
        kv_bytes: Keys and values, or latents, of one token in one layer, all GPUs.
        all_reduce_bytes: Link bytes of one row in one all-reduce, all GPUs.
        gather_bytes: Link bytes of gathering one row of logits, all GPUs.
        reductions: All-reduces per layer.
        latent: Work of latent attention, None for grouped-query attention.
    """

    num_layers: int
    kinds: tuple[LayerKind, ...]
    windowed_before: tuple[int, ...]
    window: int
    expert_bytes: float
    head_weight_bytes: int
    head_flops: int
    pair_flops: int
    kv_bytes: int
    all_reduce_bytes: int
    gather_bytes: int
    reductions: int = 2
    latent: LatentWork | None = None

    def prefill_flops(self, prefix: int, tokens: int, window: int) -> int:
        """Attention FLOPs of one layer for a chunk of ``tokens`` after ``prefix``.

        To expand the chunk's own latents is among the FLOPs of its rows; to expand
        those of the prefix is not.
        """
        pairs, latent = attended_pairs(prefix, tokens, window), self.latent
        if latent is None:
            return pairs * self.pair_flops
        if tokens <= latent.absorbed_chunk_tokens:
            return pairs * latent.absorbed_pair_flops
        return pairs * self.pair_flops + prefix * latent.expand_flops

    def expanded_bytes(self, prefix: int, tokens: int) -> int:
        """Bytes of expanded keys and values of one layer for a chunk of a prompt."""
        latent = self.latent
        if latent is None or tokens <= latent.absorbed_chunk_tokens:
            return 0
        return (prefix + tokens) * latent.expand_bytes

    @property
    def decode_pair_flops(self) -> int:
        """Attention FLOPs per key a decode sees in a layer, all heads."""
        return self.latent.absorbed_pair_flops if self.latent else self.pair_flops


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
