"""Where the time of an iteration goes when experts are placed on ranks."""

from __future__ import annotations

from typing import Any

from sim.placed_cost import PlacedStepCostModel
from sim.plan import LayerSpan, StepPlan
from sim.step_parts import SPAN_KERNELS, Parts, StepParts


class PlacedStepParts(StepParts):
    """Splits an iteration as :class:`~sim.placed_cost.PlacedStepCostModel` prices it.

    Dispatch and combine count as ``experts``, gathering contexts as
    ``head_collectives``.

    Args:
        model: The step cost.
        **parts: As :class:`~sim.step_parts.StepParts`.
    """

    def __init__(self, *, model: PlacedStepCostModel, **parts: Any) -> None:
        super().__init__(**parts)
        self._model = model

    def _span(
        self, span: LayerSpan, decoding: int, rows: int, context_tokens: int
    ) -> Parts:
        model, share = self._model, self._model.share
        chunks = tuple(chunk.tokens for chunk in span.prefill)
        parts = dict.fromkeys(SPAN_KERNELS, 0)
        if chunks or decoding:
            for kind in self._work.kinds:
                layers = kind.layers(span.first, span.last)
                run, graph = self._padded(model.rank_rows(decoding, chunks))
                reduce = self._kernels.all_reduce(run, graph=graph).ns
                linear = self._kernels.linear(run, leading=kind.leading).ns
                small = self._kernels.elementwise(run, leading=kind.leading).ns
                parts["linear"] += layers * linear
                parts["elementwise"] += layers * small
                parts["all_reduce"] += layers * model.reductions(kind) * reduce
            parts["experts"] += model.moe(span, decoding, chunks).ns
        pieces = tuple((chunk.start, chunk.tokens) for chunk in span.prefill)
        for layers, windowed in self._window_groups(span):
            if pieces:
                timed = model.prefill_timed(pieces, windowed=windowed)
                parts["prefill_attention"] += layers * timed.ns
            if rows:
                timed = self._kernels.decode_attention(
                    share(rows), share(context_tokens), windowed=windowed
                )
                parts["decode_attention"] += layers * timed.ns
        return parts

    def _head(self, plan: StepPlan, rows: int) -> Parts:
        kernels, share = self._kernels, self._model.share
        logit_rows = rows + sum(len(span.prefill) for span in plan.spans)
        rows += sum(chunk.tokens for chunk in plan.spans[0].prefill)
        run, graph = self._padded(share(rows)) if rows else (0, True)
        collectives = kernels.gather_logits(share(logit_rows)).ns
        if rows:
            collectives += kernels.all_reduce(run, graph=graph).ns
        return {
            "head": kernels.head(run, share(logit_rows)).ns,
            "head_collectives": collectives + self._model.iteration_ns(rows),
        }
