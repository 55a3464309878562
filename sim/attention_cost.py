"""Price of attention, which unlike the rest changes with every iteration."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from sim.attention_ranks import AttentionRanks
from sim.kept import bound
from sim.kernel_times import KernelTimes, Timed
from sim.model_work import ModelWork
from sim.plan import LayerSpan, StepPlan
from sim.step import Int64


class Attention(NamedTuple):
    """Attention of some layers."""

    ns: int
    extrapolated_ns: int
    kv_bytes: int
    activation_bytes: int
    flops: int


class DecodeAttention(NamedTuple):
    """Decode attention of all layers over many contexts, int64 arrays.

    ``extrapolated_ns`` is None where nothing is.
    """

    ns: Int64
    extrapolated_ns: Int64 | None
    kv_bytes: Int64
    flops: Int64

    def plus(self, other: DecodeAttention) -> DecodeAttention:
        """Of the layers of both."""
        mine, theirs = self.extrapolated_ns, other.extrapolated_ns
        outside = mine + theirs if mine is not None and theirs is not None else None
        return DecodeAttention(
            self.ns + other.ns,
            (theirs if mine is None else mine) if outside is None else outside,
            self.kv_bytes + other.kv_bytes,
            self.flops + other.flops,
        )


class AttentionCosts:
    """Attention of prompt chunks over their prefix, and of decodes over their context.

    Args:
        kernels: Kernel times of the model on one GPU.
        work: Bytes and FLOPs of the model.
        ranks: Data-parallel ranks; the slowest decides.
        layers: First layer and the one after the last, where decodes attend; None for
            the whole model. Prompts attend in the layers of their spans.
    """

    def __init__(
        self,
        *,
        kernels: KernelTimes,
        work: ModelWork,
        ranks: AttentionRanks,
        layers: tuple[int, int] | None = None,
    ) -> None:
        self._kernels = kernels
        self._work = work
        self._ranks = ranks
        self._prefill: dict[tuple[object, ...], Attention] = {}
        # Of every iteration that decodes, so worked out once.
        self._decode_groups = self._window_groups(*(layers or (0, work.num_layers)))
        self._decode_pair_flops = work.decode_pair_flops

    def of(self, plan: StepPlan, decoding: int, context_tokens: int) -> Attention:
        """Attention of an iteration."""
        ns = outside = kv_bytes = activation_bytes = flops = 0
        for span in plan.spans:
            if span.prefill:
                part = self._prefill_attention(span)
                ns += part.ns
                outside += part.extrapolated_ns
                kv_bytes += part.kv_bytes
                activation_bytes += part.activation_bytes
                flops += part.flops
        if not (decoding and plan.spans[0].decode):
            return Attention(ns, outside, kv_bytes, activation_bytes, flops)
        work = self._work
        for layers, window in self._decode_groups:
            timed = self._kernels.decode_attention(
                self._ranks.share(decoding),
                self._ranks.share(context_tokens),
                windowed=window > 0,
            )
            ns += layers * timed.ns
            outside += layers * timed.extrapolated_ns
            seen = min(context_tokens, decoding * window) if window else context_tokens
            kv_bytes += layers * (seen + decoding) * work.kv_bytes
            flops += layers * seen * self._decode_pair_flops
        return Attention(ns, outside, kv_bytes, activation_bytes, flops)

    def _window_groups(self, first: int, last: int) -> tuple[tuple[int, int], ...]:
        """(layers, window) of the layers with full and with windowed attention."""
        before = self._work.windowed_before
        windowed = before[last] - before[first]
        groups = ((last - first - windowed, 0), (windowed, self._work.window))
        return tuple([group for group in groups if group[0]])

    def _prefill_attention(self, span: LayerSpan) -> Attention:
        """Attention of prompt chunks; a batch in flight asks once per layer group."""
        first, last, before = span.first, span.last, self._work.windowed_before
        chunks = tuple([(chunk.start, chunk.tokens) for chunk in span.prefill])
        key = (chunks, last - first, before[last] - before[first])
        known = self._prefill.get(key)
        if known is None:
            bound(self._prefill)
            groups = self._window_groups(first, last)
            known = self._prefill[key] = self._chunk_attention(chunks, groups)
        return known

    def _chunk_attention(
        self, chunks: tuple[tuple[int, int], ...], groups: Sequence[tuple[int, int]]
    ) -> Attention:
        work = self._work
        ns = outside = kv_bytes = activation_bytes = flops = 0
        for layers, window in groups:
            timed = slowest_prefill(
                self._kernels, work, self._ranks, chunks, windowed=window > 0
            )
            ns += layers * timed.ns
            outside += layers * timed.extrapolated_ns
            for prefix, tokens in chunks:
                read = min(prefix, window) if window else prefix
                # Keys and values: the prefix is read, the chunk written and read.
                kv_bytes += layers * (read + 2 * tokens) * work.kv_bytes
                activation_bytes += layers * work.expanded_bytes(prefix, tokens)
                flops += layers * work.prefill_flops(prefix, tokens, window)
        return Attention(ns, outside, kv_bytes, activation_bytes, flops)

    def of_decodes(self, decoding: int, contexts: Int64) -> DecodeAttention:
        """Decode attention as in :meth:`of`, over contexts that grow."""
        first, *others = [
            self._decodes_of(decoding, contexts, layers, window)
            for layers, window in self._decode_groups
        ]
        return reduce(DecodeAttention.plus, others, first)

    def _decodes_of(
        self, decoding: int, contexts: Int64, layers: int, window: int
    ) -> DecodeAttention:
        """Of layers of one attention window."""
        work = self._work
        each_ns, beyond = self._kernels.decode_attention_many(
            self._ranks.share(decoding),
            self._ranks.share_many(contexts),
            windowed=window > 0,
        )
        ns = layers * each_ns
        seen = np.minimum(contexts, decoding * window) if window else contexts
        return DecodeAttention(
            ns,
            ns * beyond if beyond[-1] else None,  # (the longest context, if any)
            layers * work.kv_bytes * (seen + decoding),
            layers * self._decode_pair_flops * seen,
        )


def slowest_prefill(
    kernels: KernelTimes,
    work: ModelWork,
    ranks: AttentionRanks,
    chunks: tuple[tuple[int, int], ...],
    *,
    windowed: bool,
) -> Timed:
    """Attention of a layer's (prefix, tokens) chunks on the slowest rank."""
    if ranks.count == 1:
        return kernels.prefill_attention(chunks, windowed=windowed)
    parts = ranks.spread(chunks, lambda chunk: work.prefill_flops(*chunk, 0))
    times = [
        kernels.prefill_attention(part, windowed=windowed) for part in parts if part
    ]
    return max(times, key=lambda timed: timed.ns)
