"""Where the time of an iteration goes when experts are placed on ranks."""

from __future__ import annotations

from typing import Any

from sim.model_work import LayerKind
from sim.placed_rows import PlacedRowCosts
from sim.plan import LayerSpan, StepPlan
from sim.step_parts import Parts, StepParts


class PlacedStepParts(StepParts):
    """Splits an iteration whose rows :class:`~sim.placed_rows.PlacedRowCosts` prices.

    Dispatch and combine count as ``experts``, gathering contexts as
    ``head_collectives``.

    Args:
        placed: Price of the rows.
        **parts: As :class:`~sim.step_parts.StepParts`.
    """

    def __init__(self, *, placed: PlacedRowCosts, **parts: Any) -> None:
        super().__init__(**parts)
        self._placed = placed

    def _reductions(self, kind: LayerKind) -> int:
        return self._placed.reductions(kind)

    def _experts(self, decoding: int, chunks: tuple[int, ...], run: int) -> int:
        return 0  # of layers that differ: added by span

    def _span(
        self, span: LayerSpan, decoding: int, rows: int, context_tokens: int
    ) -> Parts:
        parts = super()._span(span, decoding, rows, context_tokens)
        chunks = tuple(chunk.tokens for chunk in span.prefill)
        if chunks or decoding:
            parts["experts"] += self._placed.moe(span, decoding, chunks).ns
        return parts

    def _head(self, plan: StepPlan, rows: int) -> Parts:
        parts = super()._head(plan, rows)
        rows += sum(chunk.tokens for chunk in plan.spans[0].prefill)
        parts["head_collectives"] += self._placed.iteration_ns(rows)
        return parts
