"""Price of an iteration's rows: everything but attention and host time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from sim.attention_ranks import AttentionRanks
from sim.kept import bound
from sim.kernel_times import KernelTimes, Timed
from sim.model_work import LayerKind, ModelWork
from sim.plan import LayerSpan, StepPlan


class Coverage(Protocol):
    """Expected experts a batch touches in one layer."""

    def touched(self, decode_tokens: int, chunks: tuple[int, ...] = ()) -> float:
        """Experts touched by decode tokens and chunks of prompts."""
        ...


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


class RowCosts:
    """Projections, norms, experts and all-reduces of layers, embedding and LM head.

    Rows are padded to the engine's CUDA-graph sizes. Costs depend on few numbers, which
    repeat, and are kept by kind of layer.

    Args:
        kernels: Kernel times of the model on one GPU.
        coverage: Experts touched by a batch; None for dense models.
        work: Bytes and FLOPs of the model.
        padded: Maps rows to (rows that run, whether a CUDA graph replays them).
        ranks: Data-parallel ranks of attention.
    """

    def __init__(
        self,
        *,
        kernels: KernelTimes,
        coverage: Coverage | None,
        work: ModelWork,
        padded: Callable[[int], tuple[int, bool]],
        ranks: AttentionRanks,
    ) -> None:
        self._kernels = kernels
        self._coverage = coverage
        self._work = work
        self._padded = padded
        self._ranks = ranks
        self._layers: dict[tuple[object, ...], RowCost] = {}
        self._iterations: dict[tuple[object, ...], RowCost] = {}
        self._heads: dict[tuple[int, int], RowCost] = {}

    def of(self, plan: StepPlan, decoding: int) -> RowCost:
        """Cost of the rows of an iteration with ``decoding`` requests decoding."""
        decoding = decoding if plan.spans[0].decode else 0
        key = self._key(plan.spans, decoding)
        known = self._iterations.get(key)
        if known is None:
            bound(self._iterations)
            known = self._iterations[key] = self._sum(plan, decoding)
        return known

    def reductions(self, kind: LayerKind) -> int:
        """All-reduces of a layer."""
        return self._work.reductions

    def _key(self, spans: Sequence[LayerSpan], decoding: int) -> tuple[object, ...]:
        """What the cost depends on."""
        layers: dict[tuple[int, ...], int] = {}
        for span in spans:
            tokens = tuple([chunk.tokens for chunk in span.prefill])
            layers[tokens] = layers.get(tokens, 0) + span.last - span.first
        key: tuple[object, ...] = (decoding, len(spans[0].prefill), *layers.items())
        if len(self._work.kinds) > 1:
            key += self._other_kinds(spans)
        return key

    def _other_kinds(self, spans: Sequence[LayerSpan]) -> tuple[object, ...]:
        """Layers of all kinds but the first, with what runs through them."""
        return tuple(
            (kind.leading, layers, tuple(chunk.tokens for chunk in span.prefill))
            for kind in self._work.kinds[1:]
            for span in spans
            if (layers := kind.layers(span.first, span.last))
        )

    def _sum(self, plan: StepPlan, decoding: int) -> RowCost:
        parts = [self._head(plan, decoding), *self._span_costs(plan.spans, decoding)]
        return RowCost(*map(sum, zip(*parts, strict=True)))

    def _span_costs(
        self, spans: Sequence[LayerSpan], decoding: int
    ) -> Iterator[RowCost]:
        """Layers of every span, one cost per span and kind."""
        for span in spans:
            tokens = tuple(chunk.tokens for chunk in span.prefill)
            if not tokens and not decoding:
                continue
            for kind in self._work.kinds:
                if layers := kind.layers(span.first, span.last):
                    layer = self._layer(kind, decoding, tokens)
                    yield RowCost._make([layers * value for value in layer])

    def _layer(
        self, kind: LayerKind, decoding: int, chunks: tuple[int, ...]
    ) -> RowCost:
        """One layer for decodes and chunks of prompts, attention apart."""
        if self._coverage is None and self._ranks.count == 1:
            decoding, chunks = decoding + sum(chunks), ()  # rows are rows
        key = (kind.leading, decoding, chunks)
        known = self._layers.get(key)
        if known is None:
            bound(self._layers)
            known = self._layers[key] = self._layer_cost(kind, decoding, chunks)
        return known

    def _layer_cost(
        self, kind: LayerKind, decoding: int, chunks: tuple[int, ...]
    ) -> RowCost:
        kernels, work = self._kernels, self._work
        rows = decoding + sum(chunks)
        run, graph = self._padded(self._ranks.rows(decoding, chunks))
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
        rows, logit_rows = decoding, decoding
        for chunk in plan.spans[0].prefill:
            rows += chunk.tokens
        for span in plan.spans:
            logit_rows += len(span.prefill)
        known = self._heads.get((rows, logit_rows))
        if known is None:
            bound(self._heads)
            known = self._heads[rows, logit_rows] = self._head_cost(rows, logit_rows)
        return known

    def _head_cost(self, rows: int, logit_rows: int) -> RowCost:
        kernels, work = self._kernels, self._work
        run, graph = self._padded(self._ranks.share(rows)) if rows else (0, True)
        waits = [kernels.gather_logits(self._ranks.share(logit_rows))]
        if rows:
            waits.append(kernels.all_reduce(run, graph=graph))
        head = kernels.head(run, self._ranks.share(logit_rows))
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

    def _experts(
        self, kind: LayerKind, decoding: int, chunks: tuple[int, ...], run: int
    ) -> tuple[Timed, float]:
        """Time of a layer's routed experts, and how many are touched."""
        if kind.leading:
            return Timed(0), 0.0
        touched = self._coverage.touched(decoding, chunks) if self._coverage else 0.0
        return self._kernels.experts(run, touched), touched
