"""Price of an iteration: kernels of every layer span, host overhead, bytes, energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sim.energy import PowerModel
from sim.kernel_times import KernelTimes
from sim.model_work import ModelWork, attended_pairs
from sim.plan import LayerSpan, StepPlan
from sim.step import StepCost


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


@dataclass(slots=True)
class _Sums:
    """Running sums over the spans of one plan."""

    ns: int = 0
    wait_ns: int = 0
    extrapolated_ns: int = 0
    extrapolated_experts_ns: int = 0
    extrapolated_attention_ns: int = 0
    extrapolated_head_ns: int = 0
    expert_weight_bytes: int = 0
    other_weight_bytes: int = 0
    kv_bytes: int = 0
    activation_bytes: int = 0
    link_bytes: int = 0
    flops: int = 0


_KERNEL_TIMES = tuple(name for name in _Sums.__slots__ if name.endswith("ns"))


@dataclass(frozen=True, slots=True)
class _RowCost:
    """What one layer costs for its rows, attention apart."""

    ns: int
    wait_ns: int
    extrapolated_ns: int
    extrapolated_experts_ns: int
    expert_weight_bytes: int
    other_weight_bytes: int
    activation_bytes: int
    link_bytes: int
    flops: int


class StepCostModel:
    """Closed form of an iteration: kernels run one after the other.

    Per span and layer: projections, norms, attention of each prompt chunk with its
    prefix, attention of the decode batch over its context, experts or dense FFN, and
    all-reduces; per iteration: embedding, LM head, sampling and host overhead. Rows
    are padded to the engine's CUDA-graph sizes. Costs of rows repeat and are kept;
    attention, which changes every iteration, is computed.

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
        self._rows: dict[tuple[int, tuple[int, ...]], _RowCost] = {}
        self._heads: dict[tuple[int, int], tuple[int, int, int]] = {}

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        """Cost of ``plan`` for ``decoding`` rows that attend to ``context_tokens``."""
        sums = self._sum(plan, decoding, context_tokens)
        gap_ns = self._gap_ns(plan, decoding)
        duration_ns = sums.ns + gap_ns + self._busy_ns(decoding)
        wait_ns = sums.wait_ns + gap_ns
        energy = self._power.split(
            duration_ns=duration_ns,
            wait_ns=wait_ns,
            hbm_bytes=(
                sums.expert_weight_bytes
                + sums.other_weight_bytes
                + sums.kv_bytes
                + sums.activation_bytes
            ),
            flops=sums.flops,
        )
        return StepCost(
            duration_ns=duration_ns,
            wait_ns=wait_ns,
            extrapolated_ns=sums.extrapolated_ns,
            extrapolated_experts_ns=sums.extrapolated_experts_ns,
            extrapolated_attention_ns=sums.extrapolated_attention_ns,
            extrapolated_head_ns=sums.extrapolated_head_ns,
            expert_weight_bytes=sums.expert_weight_bytes,
            other_weight_bytes=sums.other_weight_bytes,
            kv_bytes=sums.kv_bytes,
            activation_bytes=sums.activation_bytes,
            link_bytes=sums.link_bytes,
            flops=sums.flops,
            energy_run_j=energy.run_j,
            energy_wait_j=energy.wait_j,
            energy_hbm_j=energy.hbm_j,
            energy_flop_j=energy.flop_j,
        )

    def kernel_ns(self, plan: StepPlan, decoding: int, context_tokens: int) -> int:
        """Duration of ``plan`` without host overhead."""
        return self._sum(plan, decoding, context_tokens).ns

    def _sum(self, plan: StepPlan, decoding: int, context_tokens: int) -> _Sums:
        sums = _Sums()
        for span in plan.spans:
            self._add_span(sums, span, decoding if span.decode else 0)
        if decoding and plan.spans[0].decode:
            self._add_decode_attention(sums, decoding, context_tokens)
        self._add_head(sums, plan, decoding)
        if self._kernel_factor != 1.0:
            for name in _KERNEL_TIMES:
                scaled = round(getattr(sums, name) * self._kernel_factor)
                setattr(sums, name, scaled)
        return sums

    def _gap_ns(self, plan: StepPlan, decoding: int) -> int:
        """Host time of the iteration in which the GPUs wait."""
        host = self._host
        layers = sum(span.layers for span in plan.spans if span.prefill)
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

    def _add_span(self, sums: _Sums, span: LayerSpan, decoding: int) -> None:
        chunks = tuple(chunk.tokens for chunk in span.prefill)
        if not chunks and not decoding:
            return
        key = (decoding, chunks)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._row_cost(decoding, chunks)
        layers = span.layers
        sums.ns += layers * row.ns
        sums.wait_ns += layers * row.wait_ns
        sums.extrapolated_ns += layers * row.extrapolated_ns
        sums.extrapolated_experts_ns += layers * row.extrapolated_experts_ns
        sums.expert_weight_bytes += layers * row.expert_weight_bytes
        sums.other_weight_bytes += layers * row.other_weight_bytes
        sums.activation_bytes += layers * row.activation_bytes
        sums.link_bytes += layers * row.link_bytes
        sums.flops += layers * row.flops
        if chunks:
            self._add_prefill_attention(sums, span)

    def _row_cost(self, decoding: int, chunks: tuple[int, ...]) -> _RowCost:
        kernels, work = self._kernels, self._work
        rows = decoding + sum(chunks)
        run, graph = self._padded(rows)
        reduce = kernels.all_reduce(run, graph=graph)
        touched = self._coverage.touched(decoding, chunks) if self._coverage else 0.0
        experts = kernels.experts(run, touched)
        timed = (kernels.linear(run), kernels.elementwise(run), experts)
        wait_ns = work.reductions * reduce.ns
        outside = work.reductions * reduce.extrapolated_ns
        return _RowCost(
            ns=sum(t.ns for t in timed) + wait_ns,
            wait_ns=wait_ns,
            extrapolated_ns=sum(t.extrapolated_ns for t in timed) + outside,
            extrapolated_experts_ns=experts.extrapolated_ns,
            expert_weight_bytes=round(touched * work.expert_bytes),
            other_weight_bytes=work.layer_weight_bytes,
            activation_bytes=rows * work.row_activation_bytes,
            link_bytes=rows * work.reductions * work.all_reduce_bytes,
            flops=rows * work.row_flops,
        )

    def _add_prefill_attention(self, sums: _Sums, span: LayerSpan) -> None:
        chunks = tuple((chunk.start, chunk.tokens) for chunk in span.prefill)
        work = self._work
        windowed = work.windowed_before[span.last] - work.windowed_before[span.first]
        for layers, window in ((span.layers - windowed, 0), (windowed, work.window)):
            if not layers:
                continue
            timed = self._kernels.prefill_attention(chunks, windowed=window > 0)
            sums.ns += layers * timed.ns
            sums.extrapolated_ns += layers * timed.extrapolated_ns
            sums.extrapolated_attention_ns += layers * timed.extrapolated_ns
            for prefix, tokens in chunks:
                read = min(prefix, window) if window else prefix
                # Keys and values: the prefix is read, the chunk written and read.
                sums.kv_bytes += layers * (read + 2 * tokens) * work.kv_bytes
                pairs = attended_pairs(prefix, tokens, window)
                sums.flops += layers * pairs * work.pair_flops

    def _add_decode_attention(
        self, sums: _Sums, decoding: int, context_tokens: int
    ) -> None:
        work = self._work
        windowed = work.windowed_before[work.num_layers]
        groups = ((work.num_layers - windowed, 0), (windowed, work.window))
        for layers, window in groups:
            if not layers:
                continue
            timed = self._kernels.decode_attention(
                decoding, context_tokens, windowed=window > 0
            )
            sums.ns += layers * timed.ns
            sums.extrapolated_ns += layers * timed.extrapolated_ns
            sums.extrapolated_attention_ns += layers * timed.extrapolated_ns
            seen = min(context_tokens, decoding * window) if window else context_tokens
            sums.kv_bytes += layers * (seen + decoding) * work.kv_bytes
            sums.flops += layers * seen * work.pair_flops

    def _add_head(self, sums: _Sums, plan: StepPlan, decoding: int) -> None:
        """Embedding where layer 0 runs, LM head on decodes and prompts' last tokens.

        The engines modelled compute logits for every prompt in the batch in every
        iteration, also before its last chunk or group. A vocabulary-parallel
        embedding ends in an all-reduce, the LM head in a gather.
        """
        prompts = sum(len(span.prefill) for span in plan.spans)
        entering = sum(c.tokens for c in plan.spans[0].prefill)
        decoding = decoding if plan.spans[0].decode else 0
        rows, logit_rows = decoding + entering, decoding + prompts
        known = self._heads.get((rows, logit_rows))
        if known is None:
            known = self._heads[rows, logit_rows] = self._head(rows, logit_rows)
        ns, wait_ns, outside = known
        sums.ns += ns
        sums.wait_ns += wait_ns
        sums.extrapolated_ns += outside
        sums.extrapolated_head_ns += outside
        sums.other_weight_bytes += self._work.head_weight_bytes
        sums.flops += logit_rows * self._work.head_flops
        sums.link_bytes += rows * self._work.all_reduce_bytes
        sums.link_bytes += logit_rows * self._work.gather_bytes

    def _head(self, rows: int, logit_rows: int) -> tuple[int, int, int]:
        """Duration, wait and extrapolated time (ns) around the layers."""
        run, graph = self._padded(rows) if rows else (0, True)
        waits = [self._kernels.gather_logits(logit_rows)]
        if rows:
            waits.append(self._kernels.all_reduce(run, graph=graph))
        head = self._kernels.head(run, logit_rows)
        wait_ns = sum(timed.ns for timed in waits)
        outside = sum(timed.extrapolated_ns for timed in (head, *waits))
        return head.ns + wait_ns, wait_ns, outside
