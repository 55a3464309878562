"""Price of an iteration: kernels of every layer span, host overhead, bytes, energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from sim.energy import PowerModel
from sim.kernel_times import KernelTimes, Timed
from sim.model_work import LayerKind, ModelWork
from sim.plan import LayerSpan, StepPlan
from sim.step import DecodeCosts, Int64, StepCost


class Coverage(Protocol):
    """Expected experts a batch touches in one layer."""

    def touched(self, decode_tokens: int, chunks: tuple[int, ...] = ()) -> float:
        """Experts touched by decode tokens and chunks of prompts."""
        ...


@dataclass(frozen=True, slots=True)
class HostTimes:
    """What an engine adds to the kernels of an iteration (ns).

    Host overhead by kind of iteration, in which the GPUs wait, and time per layer and
    per decoding request, in which they do not.

    Attributes:
        decode_ns: Decodes only.
        prefill_ns: Prompts only, through all layers.
        mixed_ns: Prompts through all layers together with decodes.
        layered_ns: Prompts through one layer group.
        per_layer_ns: Small kernels and gaps in every layer of the model.
        per_sequence_ns: Sampling, bookkeeping and streaming of a decoding request.
    """

    decode_ns: int
    prefill_ns: int
    mixed_ns: int
    layered_ns: int
    per_layer_ns: int = 0
    per_sequence_ns: int = 0


_MOST_KEPT: Final = 1 << 15
"""Costs kept of one kind; beyond, all are forgotten, so that memory stays bounded."""


class RowCost(NamedTuple):
    """What layers or a whole iteration cost for their rows, attention apart."""

    ns: int
    wait_ns: int
    extrapolated_ns: int
    extrapolated_experts_ns: int
    extrapolated_head_ns: int
    expert_weight_bytes: int
    other_weight_bytes: int
    activation_bytes: int
    link_bytes: int
    flops: int

    @property
    def hbm_bytes(self) -> int:
        """Weights and activations."""
        return (
            self.expert_weight_bytes + self.other_weight_bytes + self.activation_bytes
        )


class _Attention(NamedTuple):
    """Attention of some layers."""

    ns: int
    extrapolated_ns: int
    kv_bytes: int
    activation_bytes: int
    flops: int

    @property
    def hbm_bytes(self) -> int:
        """Keys, values and activations."""
        return self.kv_bytes + self.activation_bytes


class _DecodeAttention(NamedTuple):
    """Decode attention of all layers over many contexts, int64 arrays.

    ``extrapolated_ns`` is None where nothing is.
    """

    ns: Int64
    extrapolated_ns: Int64 | None
    kv_bytes: Int64
    flops: Int64

    def plus(self, other: _DecodeAttention) -> _DecodeAttention:
        """Of the layers of both."""
        mine, theirs = self.extrapolated_ns, other.extrapolated_ns
        outside = mine + theirs if mine is not None and theirs is not None else None
        return _DecodeAttention(
            self.ns + other.ns,
            (theirs if mine is None else mine) if outside is None else outside,
            self.kv_bytes + other.kv_bytes,
            self.flops + other.flops,
        )


class StepCostModel:
    """Closed form of an iteration: kernels run one after the other.

    Per span and layer: projections, norms, attention of each prompt chunk with its
    prefix, attention of the decode batch over its context, experts or dense FFN, and
    all-reduces; per iteration: embedding, LM head, sampling and host overhead. Rows
    are padded to the engine's CUDA-graph sizes. Costs of rows repeat and are kept by
    kind of layer; attention, which changes every iteration, is computed.

    Args:
        kernels: Kernel times of the model on one GPU.
        coverage: Experts touched by a batch; None for dense models.
        work: Bytes and FLOPs of the model.
        host: Host overhead.
        padded: Maps rows to (rows that run, whether a CUDA graph replays them).
        power: Energy of an iteration.
        kernel_factor: On every kernel time.
    """

    def __init__(
        self,
        *,
        kernels: KernelTimes,
        coverage: Coverage | None,
        work: ModelWork,
        host: HostTimes,
        padded: Callable[[int], tuple[int, bool]],
        power: PowerModel,
        kernel_factor: float = 1.0,
    ) -> None:
        self._kernels = kernels
        self._coverage = coverage
        self._work = work
        self._host = host
        self._padded = padded
        self._power = power
        self._kernel_factor = kernel_factor
        self._layers: dict[tuple[object, ...], RowCost] = {}
        self._rows: dict[tuple[object, ...], RowCost] = {}
        self._prefill: dict[tuple[object, ...], _Attention] = {}
        self._decodes = StepPlan((LayerSpan(0, work.num_layers),))

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        """Cost of ``plan`` for ``decoding`` rows that attend to ``context_tokens``."""
        rows = self._rows_of(plan, decoding)
        attention = self._attention(plan, decoding, context_tokens)
        scaled, gap_ns = self._scaled, self._gap_ns(plan, decoding)
        kernel_ns = scaled(rows.ns + attention.ns)
        duration_ns = kernel_ns + gap_ns + self._busy_ns(decoding)
        wait_ns = scaled(rows.wait_ns) + gap_ns
        flops = rows.flops + attention.flops
        energy = self._power.split(
            duration_ns=duration_ns,
            wait_ns=wait_ns,
            hbm_bytes=rows.hbm_bytes + attention.hbm_bytes,
            flops=flops,
        )
        return StepCost(
            duration_ns,
            wait_ns,
            scaled(rows.extrapolated_ns + attention.extrapolated_ns),
            scaled(rows.extrapolated_experts_ns),
            scaled(attention.extrapolated_ns),
            scaled(rows.extrapolated_head_ns),
            rows.expert_weight_bytes,
            rows.other_weight_bytes,
            attention.kv_bytes,
            rows.activation_bytes + attention.activation_bytes,
            rows.link_bytes,
            flops,
            energy.run_j,
            energy.wait_j,
            energy.hbm_j,
            energy.flop_j,
        )

    def price_decodes(
        self, decoding: int, context_tokens: int, steps: int
    ) -> DecodeCosts:
        """Costs of ``steps`` iterations that only decode; attention alone changes."""
        rows, gap_ns = self._rows_of(self._decodes, decoding), self._host.decode_ns
        last = context_tokens + decoding * steps
        contexts = np.arange(context_tokens, last, decoding, dtype=np.int64)
        attention = self._decode_attention_many(decoding, contexts)
        scaled, many = self._scaled, self._scaled_many
        duration_ns = many(rows.ns + attention.ns)
        duration_ns += gap_ns + self._busy_ns(decoding)
        outside = attention.extrapolated_ns
        wait_ns = scaled(rows.wait_ns) + gap_ns
        flops = rows.flops + attention.flops
        return DecodeCosts(
            duration_ns=duration_ns,
            counts=(
                duration_ns,
                wait_ns,
                scaled(rows.extrapolated_ns)
                if outside is None
                else many(rows.extrapolated_ns + outside),
                scaled(rows.extrapolated_experts_ns),
                0 if outside is None else many(outside),
                scaled(rows.extrapolated_head_ns),
                rows.expert_weight_bytes,
                rows.other_weight_bytes,
                attention.kv_bytes,
                rows.activation_bytes,
                rows.link_bytes,
                flops,
            ),
            energy_j=self._power.split_many(
                duration_ns=duration_ns,
                wait_ns=wait_ns,
                hbm_bytes=rows.hbm_bytes + attention.kv_bytes,
                flops=flops,
            ),
        )

    def kernel_ns(self, plan: StepPlan, decoding: int, context_tokens: int) -> int:
        """Duration of ``plan`` without host overhead."""
        attention = self._attention(plan, decoding, context_tokens)
        return self._scaled(self._rows_of(plan, decoding).ns + attention.ns)

    def _scaled(self, ns: int) -> int:
        """Kernel time under the engine's factor."""
        factor = self._kernel_factor
        return ns if factor == 1.0 else round(ns * factor)

    def _scaled_many(self, ns: Int64) -> Int64:
        """As :meth:`_scaled`: NumPy rounds as Python does."""
        factor = self._kernel_factor
        return ns if factor == 1.0 else np.rint(ns * factor).astype(np.int64)

    def _gap_ns(self, plan: StepPlan, decoding: int) -> int:
        """Host time of the iteration in which the GPUs wait."""
        host, layers = self._host, 0
        for span in plan.spans:
            if span.prefill:
                layers += span.layers
        if not layers:
            return host.decode_ns
        if layers < self._work.num_layers:
            return host.layered_ns
        return host.mixed_ns if decoding else host.prefill_ns

    def _busy_ns(self, decoding: int) -> int:
        """Time of what has no table, in which the GPUs keep running."""
        host = self._host
        return (
            self._work.num_layers * host.per_layer_ns + decoding * host.per_sequence_ns
        )

    def _rows_of(self, plan: StepPlan, decoding: int) -> RowCost:
        """All of an iteration but attention, which depends on few numbers only."""
        spans = plan.spans
        decoding = decoding if spans[0].decode else 0
        layers: dict[tuple[int, ...], int] = {}
        for span in spans:
            tokens = tuple([chunk.tokens for chunk in span.prefill])
            layers[tokens] = layers.get(tokens, 0) + span.last - span.first
        key: tuple[object, ...] = (decoding, len(spans[0].prefill), *layers.items())
        if len(self._work.kinds) > 1:
            key += self._other_kinds(spans)
        return self._kept_rows(key, plan, decoding)

    def _kept_rows(
        self, key: tuple[object, ...], plan: StepPlan, decoding: int
    ) -> RowCost:
        known = self._rows.get(key)
        if known is None:
            _bound(self._rows)
            known = self._rows[key] = self._sum_rows(plan, decoding)
        return known

    # What an expert-parallel group does otherwise (sim.placed_cost) hangs on these.

    def share(self, number: int) -> int:
        """Requests or tokens of the attention rank that has most."""
        return number

    def share_many(self, numbers: Int64) -> Int64:
        """The same of many numbers."""
        return numbers

    def rank_rows(self, decoding: int, chunks: tuple[int, ...]) -> int:
        """Rows of that rank."""
        return decoding + sum(chunks)

    def reductions(self, kind: LayerKind) -> int:
        """All-reduces of a layer."""
        return self._work.reductions

    def _experts(
        self, kind: LayerKind, decoding: int, chunks: tuple[int, ...], run: int
    ) -> tuple[Timed, float]:
        """Time of a layer's routed experts, and how many are touched."""
        if kind.leading:
            return Timed(0), 0.0
        touched = self._coverage.touched(decoding, chunks) if self._coverage else 0.0
        return self._kernels.experts(run, touched), touched

    def prefill_timed(
        self, chunks: tuple[tuple[int, int], ...], *, windowed: bool
    ) -> Timed:
        """Attention of a layer's (prefix, tokens) chunks."""
        return self._kernels.prefill_attention(chunks, windowed=windowed)

    def _other_kinds(self, spans: Sequence[LayerSpan]) -> tuple[object, ...]:
        """Layers of all kinds but the first, with what runs through them."""
        return tuple(
            (kind.leading, layers, tuple(chunk.tokens for chunk in span.prefill))
            for kind in self._work.kinds[1:]
            for span in spans
            if (layers := kind.layers(span.first, span.last))
        )

    def _sum_rows(self, plan: StepPlan, decoding: int) -> RowCost:
        parts = [self._head(plan, decoding)]
        for span in plan.spans:
            tokens = tuple(chunk.tokens for chunk in span.prefill)
            if not tokens and not decoding:
                continue
            for kind in self._work.kinds:
                if layers := kind.layers(span.first, span.last):
                    layer = self._layer(kind, decoding, tokens)
                    parts.append(RowCost(*(layers * value for value in layer)))
        return RowCost(*map(sum, zip(*parts, strict=True)))

    def _layer(
        self, kind: LayerKind, decoding: int, chunks: tuple[int, ...]
    ) -> RowCost:
        """One layer for decodes and chunks of prompts, attention apart."""
        key = (kind.leading, decoding, chunks)
        known = self._layers.get(key)
        if known is None:
            _bound(self._layers)
            known = self._layers[key] = self._layer_cost(kind, decoding, chunks)
        return known

    def _layer_cost(
        self, kind: LayerKind, decoding: int, chunks: tuple[int, ...]
    ) -> RowCost:
        kernels, work = self._kernels, self._work
        rows = decoding + sum(chunks)
        run, graph = self._padded(self.rank_rows(decoding, chunks))
        reduce = kernels.all_reduce(run, graph=graph)
        experts, touched = self._experts(kind, decoding, chunks, run)
        timed = (
            kernels.linear(run, leading=kind.leading),
            kernels.elementwise(run, leading=kind.leading),
            experts,
        )
        reductions = self.reductions(kind)
        wait_ns = reductions * reduce.ns
        outside = reductions * reduce.extrapolated_ns
        return RowCost(
            ns=sum(t.ns for t in timed) + wait_ns,
            wait_ns=wait_ns,
            extrapolated_ns=sum(t.extrapolated_ns for t in timed) + outside,
            extrapolated_experts_ns=experts.extrapolated_ns,
            extrapolated_head_ns=0,
            expert_weight_bytes=round(touched * work.expert_bytes),
            other_weight_bytes=kind.weight_bytes,
            activation_bytes=rows * kind.row_activation_bytes,
            link_bytes=rows * reductions * work.all_reduce_bytes,
            flops=rows * kind.row_flops,
        )

    def _head(self, plan: StepPlan, decoding: int) -> RowCost:
        """Embedding where layer 0 runs, LM head on decodes and prompts' last tokens.

        The engines modelled compute logits for every prompt in the batch in every
        iteration, also before its last chunk or group. A vocabulary-parallel
        embedding ends in an all-reduce, the LM head in a gather.
        """
        kernels, work = self._kernels, self._work
        rows = decoding + sum(chunk.tokens for chunk in plan.spans[0].prefill)
        logit_rows = decoding + sum(len(span.prefill) for span in plan.spans)
        run, graph = self._padded(self.share(rows)) if rows else (0, True)
        waits = [kernels.gather_logits(self.share(logit_rows))]
        if rows:
            waits.append(kernels.all_reduce(run, graph=graph))
        head = kernels.head(run, self.share(logit_rows))
        wait_ns = sum(timed.ns for timed in waits)
        outside = sum(timed.extrapolated_ns for timed in (head, *waits))
        return RowCost(
            ns=head.ns + wait_ns,
            wait_ns=wait_ns,
            extrapolated_ns=outside,
            extrapolated_experts_ns=0,
            extrapolated_head_ns=outside,
            expert_weight_bytes=0,
            other_weight_bytes=work.head_weight_bytes,
            activation_bytes=0,
            link_bytes=rows * work.all_reduce_bytes + logit_rows * work.gather_bytes,
            flops=logit_rows * work.head_flops,
        )

    def _attention(
        self, plan: StepPlan, decoding: int, context_tokens: int
    ) -> _Attention:
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
            return _Attention(ns, outside, kv_bytes, activation_bytes, flops)
        work = self._work
        for layers, window in self._window_groups(0, work.num_layers):
            timed = self._kernels.decode_attention(
                self.share(decoding), self.share(context_tokens), windowed=window > 0
            )
            ns += layers * timed.ns
            outside += layers * timed.extrapolated_ns
            seen = min(context_tokens, decoding * window) if window else context_tokens
            kv_bytes += layers * (seen + decoding) * work.kv_bytes
            flops += layers * seen * work.decode_pair_flops
        return _Attention(ns, outside, kv_bytes, activation_bytes, flops)

    def _window_groups(self, first: int, last: int) -> tuple[tuple[int, int], ...]:
        """(layers, window) of the layers with full and with windowed attention."""
        before = self._work.windowed_before
        windowed = before[last] - before[first]
        groups = ((last - first - windowed, 0), (windowed, self._work.window))
        return tuple([group for group in groups if group[0]])

    def _prefill_attention(self, span: LayerSpan) -> _Attention:
        """Attention of prompt chunks; a batch in flight asks once per layer group."""
        groups = self._window_groups(span.first, span.last)
        chunks = tuple([(chunk.start, chunk.tokens) for chunk in span.prefill])
        key = (chunks, groups)
        known = self._prefill.get(key)
        if known is None:
            _bound(self._prefill)
            known = self._prefill[key] = self._chunk_attention(chunks, groups)
        return known

    def _chunk_attention(
        self, chunks: tuple[tuple[int, int], ...], groups: Sequence[tuple[int, int]]
    ) -> _Attention:
        work = self._work
        ns = outside = kv_bytes = activation_bytes = flops = 0
        for layers, window in groups:
            timed = self.prefill_timed(chunks, windowed=window > 0)
            ns += layers * timed.ns
            outside += layers * timed.extrapolated_ns
            for prefix, tokens in chunks:
                read = min(prefix, window) if window else prefix
                # Keys and values: the prefix is read, the chunk written and read.
                kv_bytes += layers * (read + 2 * tokens) * work.kv_bytes
                activation_bytes += layers * work.expanded_bytes(prefix, tokens)
                flops += layers * work.prefill_flops(prefix, tokens, window)
        return _Attention(ns, outside, kv_bytes, activation_bytes, flops)

    def _decode_attention_many(
        self, decoding: int, contexts: Int64
    ) -> _DecodeAttention:
        """Decode attention as in :meth:`_attention`, over an array of contexts."""
        groups = self._window_groups(0, self._work.num_layers)
        first, *others = [
            self._decodes_of(decoding, contexts, layers, window)
            for layers, window in groups
        ]
        return reduce(_DecodeAttention.plus, others, first)

    def _decodes_of(
        self, decoding: int, contexts: Int64, layers: int, window: int
    ) -> _DecodeAttention:
        """Of layers of one attention window."""
        work = self._work
        each_ns, beyond = self._kernels.decode_attention_many(
            self.share(decoding), self.share_many(contexts), windowed=window > 0
        )
        ns = layers * each_ns
        seen = np.minimum(contexts, decoding * window) if window else contexts
        return _DecodeAttention(
            ns,
            ns * beyond if beyond.any() else None,
            layers * work.kv_bytes * (seen + decoding),
            layers * work.decode_pair_flops * seen,
        )


def _bound(kept: dict[Any, Any]) -> None:
    if len(kept) >= _MOST_KEPT:
        kept.clear()
