"""Where the time of one iteration goes: its kernels, span by span, to the nanosecond.

The slow twin of :class:`sim.step_cost.StepCostModel`: same kernels, no sums. Used to
draw what happened, never on the iteration path.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Final

from sim.attention_cost import slowest_prefill
from sim.attention_ranks import ONE_RANK, AttentionRanks
from sim.kernel_times import KernelTimes
from sim.model_work import LayerKind, ModelWork
from sim.plan import LayerSpan, StepPlan
from sim.row_cost import Coverage
from sim.step_cost import HostTimes

SPAN_KERNELS: Final = (
    "linear",
    "elementwise",
    "prefill_attention",
    "decode_attention",
    "experts",
    "all_reduce",
)
"""Kernels of the layers, named as in :class:`sim.kernel_times.KernelTimes`."""
STEP_KERNELS: Final = ("head", "head_collectives")
"""Kernels around the layers: embedding, LM head and sampling; their collectives."""
STEP_GAPS: Final = ("engine", "host")
"""Time without a kernel table: the GPUs keep running in the first, wait in the
second."""
PARTS: Final = (*SPAN_KERNELS, *STEP_KERNELS, *STEP_GAPS)
Parts = dict[str, int]


class StepParts:
    """Splits an iteration into its kernels.

    Args:
        kernels: Kernel times of the model on one GPU.
        coverage: Experts touched by a batch; None for dense models.
        work: Bytes and FLOPs of the model.
        host: Host overhead.
        padded: Maps rows to (rows that run, whether a CUDA graph replays them).
        kernel_factor: On every kernel time.
        ranks: Data-parallel ranks of attention.
    """

    def __init__(
        self,
        *,
        kernels: KernelTimes,
        coverage: Coverage | None,
        work: ModelWork,
        host: HostTimes,
        padded: Callable[[int], tuple[int, bool]],
        kernel_factor: float = 1.0,
        ranks: AttentionRanks = ONE_RANK,
    ) -> None:
        self._kernels = kernels
        self._coverage = coverage
        self._work = work
        self._host = host
        self._padded = padded
        self._factor = kernel_factor
        self._ranks = ranks
        self._layers: dict[tuple[bool, int, tuple[int, ...]], Parts] = {}

    def split(
        self, plan: StepPlan, decoding: int, context_tokens: int
    ) -> tuple[list[Parts], Parts]:
        """Nanoseconds of every kernel of an iteration.

        All of them add up to the duration that the step cost model gives.

        Args:
            plan: What runs.
            decoding: Decoding requests.
            context_tokens: KV tokens they attend to, their new ones included.

        Returns:
            Per span of the plan its ``SPAN_KERNELS``; and ``STEP_KERNELS`` and
            ``STEP_GAPS`` of the iteration.
        """
        rows = decoding if plan.spans[0].decode else 0
        spans = [
            self._span(span, decoding if span.decode else 0, rows, context_tokens)
            for span in plan.spans
        ]
        step = self._head(plan, rows)
        self._scale([*spans, step])
        step |= self._gaps(plan, decoding)
        return spans, step

    def around(self, plan: StepPlan, decoding: int) -> Parts:
        """``STEP_KERNELS``, before the kernel factor, and ``STEP_GAPS`` of a plan."""
        rows = decoding if plan.spans[0].decode else 0
        return self._head(plan, rows) | self._gaps(plan, decoding)

    def _span(
        self, span: LayerSpan, decoding: int, rows: int, context_tokens: int
    ) -> Parts:
        chunks = tuple(chunk.tokens for chunk in span.prefill)
        parts = dict.fromkeys(SPAN_KERNELS, 0)
        for kind in self._work.kinds if chunks or decoding else ():
            layers = kind.layers(span.first, span.last)
            for name, ns in self._layer(kind, decoding, chunks).items():
                parts[name] += layers * ns
        pieces = tuple((chunk.start, chunk.tokens) for chunk in span.prefill)
        for layers, windowed in self._window_groups(span):
            if pieces:
                timed = slowest_prefill(
                    self._kernels, self._work, self._ranks, pieces, windowed=windowed
                )
                parts["prefill_attention"] += layers * timed.ns
            if rows:
                timed = self._kernels.decode_attention(
                    self._ranks.share(rows),
                    self._ranks.share(context_tokens),
                    windowed=windowed,
                )
                parts["decode_attention"] += layers * timed.ns
        return parts

    def _layer(self, kind: LayerKind, decoding: int, chunks: tuple[int, ...]) -> Parts:
        key = (kind.leading, decoding, chunks)
        known = self._layers.get(key)
        if known is None:
            known = self._layers[key] = self._layer_parts(kind, decoding, chunks)
        return known

    def _layer_parts(
        self, kind: LayerKind, decoding: int, chunks: tuple[int, ...]
    ) -> Parts:
        kernels = self._kernels
        run, graph = self._padded(self._ranks.rows(decoding, chunks))
        reduce = kernels.all_reduce(run, graph=graph)
        return {
            "linear": kernels.linear(run, leading=kind.leading).ns,
            "elementwise": kernels.elementwise(run, leading=kind.leading).ns,
            "all_reduce": self._reductions(kind) * reduce.ns,
            "experts": 0 if kind.leading else self._experts(decoding, chunks, run),
        }

    def _reductions(self, kind: LayerKind) -> int:
        """All-reduces of a layer."""
        return self._work.reductions

    def _experts(self, decoding: int, chunks: tuple[int, ...], run: int) -> int:
        """Experts of one layer."""
        coverage = self._coverage
        touched = coverage.touched(decoding, chunks) if coverage else 0.0
        return self._kernels.experts(run, touched).ns

    def _window_groups(self, span: LayerSpan) -> list[tuple[int, bool]]:
        """(layers, windowed) of the span, leaving out kinds it has none of."""
        before = self._work.windowed_before
        windowed = before[span.last] - before[span.first]
        groups = ((span.layers - windowed, False), (windowed, True))
        return [group for group in groups if group[0]]

    def _head(self, plan: StepPlan, rows: int) -> Parts:
        kernels, share = self._kernels, self._ranks.share
        logit_rows = share(rows + sum(len(span.prefill) for span in plan.spans))
        rows += sum(chunk.tokens for chunk in plan.spans[0].prefill)
        run, graph = self._padded(share(rows)) if rows else (0, True)
        collectives = kernels.gather_logits(logit_rows).ns
        if rows:
            collectives += kernels.all_reduce(run, graph=graph).ns
        return {
            "head": kernels.head(run, logit_rows).ns,
            "head_collectives": collectives,
        }

    def _scale(self, groups: list[Parts]) -> None:
        """Apply the kernel factor; the parts add up to the scaled sum, rounded once."""
        if self._factor == 1.0:
            return
        values = [ns for parts in groups for ns in parts.values()]
        ends = [round(ns * self._factor) for ns in accumulate(values, initial=0)]
        scaled = (after - before for before, after in pairwise(ends))
        for parts in groups:
            parts.update({name: next(scaled) for name in parts})

    def _gaps(self, plan: StepPlan, decoding: int) -> Parts:
        host, work = self._host, self._work
        layers = sum(span.layers for span in plan.spans if span.prefill)
        whole = host.mixed_ns if decoding else host.prefill_ns
        partial = host.layered_ns if layers else host.decode_ns
        return {
            "engine": work.num_layers * host.per_layer_ns
            + decoding * host.per_sequence_ns,
            "host": whole if layers >= work.num_layers else partial,
        }
