"""Price of an iteration whose experts are placed on ranks, one layer unlike another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sim.expert_layers import ExpertLayers, MoeLayers
from sim.kernel_times import Timed
from sim.model_work import LayerKind
from sim.plan import LayerSpan, StepPlan
from sim.step import Int64
from sim.step_cost import RowCost, StepCostModel

_Item = TypeVar("_Item")


class PlacedStepCostModel(StepCostModel):
    """A step cost with experts on the ranks of an expert-parallel group.

    Args:
        expert_layers: Price of the MoE part of every layer.
        attention_ranks: Data-parallel ranks of attention. Requests are spread evenly,
            every chunk of a prompt on one rank; the slowest decides.
        **parts: As :class:`~sim.step_cost.StepCostModel`.
    """

    def __init__(
        self, *, expert_layers: ExpertLayers, attention_ranks: int = 1, **parts: Any
    ) -> None:
        super().__init__(**parts)
        self._placed = expert_layers
        self._ranks = attention_ranks

    def share(self, number: int) -> int:
        """Requests or tokens of the attention rank that has most."""
        return -(-number // self._ranks)

    def share_many(self, numbers: Int64) -> Int64:
        """The same of many numbers."""
        return -(-numbers // self._ranks)

    def rank_rows(self, decoding: int, chunks: tuple[int, ...]) -> int:
        """Rows of that rank."""
        spread = spread_over(chunks, self._ranks, lambda tokens: tokens)
        return self.share(decoding) + max(sum(part) for part in spread)

    def reductions(self, kind: LayerKind) -> int:
        """All-reduces of a layer."""
        return super().reductions(kind) if kind.leading else self._placed.reductions

    def _experts(
        self, kind: LayerKind, decoding: int, chunks: tuple[int, ...], run: int
    ) -> tuple[Timed, float]:
        return Timed(0), 0.0  # added by span, see _sum_rows

    def prefill_timed(
        self, chunks: tuple[tuple[int, int], ...], *, windowed: bool
    ) -> Timed:
        """Attention of a layer's (prefix, tokens) chunks on the slowest rank."""
        work = self._work

        def flops(chunk: tuple[int, int]) -> int:
            return work.prefill_flops(*chunk, 0)

        spread = spread_over(chunks, self._ranks, flops)
        times = [
            self._kernels.prefill_attention(part, windowed=windowed)
            for part in spread
            if part
        ]
        return max(times, key=lambda timed: timed.ns)

    def _rows_of(self, plan: StepPlan, decoding: int) -> RowCost:
        decoding = decoding if plan.spans[0].decode else 0
        spans = tuple(
            (span.first, span.last, tuple(chunk.tokens for chunk in span.prefill))
            for span in plan.spans
        )
        return self._kept_rows((decoding, *spans), plan, decoding)

    def _sum_rows(self, plan: StepPlan, decoding: int) -> RowCost:
        parts = [super()._sum_rows(plan, decoding)]
        for span in plan.spans:
            tokens = tuple(chunk.tokens for chunk in span.prefill)
            if tokens or decoding:
                parts.append(self.moe(span, decoding, tokens))
        entering = sum(chunk.tokens for chunk in plan.spans[0].prefill)
        ns = self.iteration_ns(decoding + entering)
        moved = self._placed.iteration_bytes(decoding + entering)
        parts.append(RowCost(ns, ns, 0, 0, 0, 0, 0, 0, moved, 0))
        return RowCost(*map(sum, zip(*parts, strict=True)))

    def iteration_ns(self, rows: int) -> int:
        """Communication once per iteration of so many rows."""
        return self._placed.iteration_ns(rows)

    def moe(self, span: LayerSpan, decoding: int, chunks: tuple[int, ...]) -> RowCost:
        """Experts and messages of a span's layers, before the engine's factor."""
        _, graph = self._padded(self.rank_rows(decoding, chunks))
        cost = self._placed.cost(decoding, chunks, graph=graph)
        before = self._work.kinds[0].before  # the kind with experts comes first
        return _between(cost, before[span.first], before[span.last])


def _between(cost: MoeLayers, first: int, last: int) -> RowCost:
    def part(running: tuple[int, ...]) -> int:
        return running[last] - running[first]

    return RowCost(
        ns=part(cost.ns),
        wait_ns=part(cost.wait_ns),
        extrapolated_ns=part(cost.extrapolated_ns),
        extrapolated_experts_ns=part(cost.extrapolated_experts_ns),
        extrapolated_head_ns=0,
        expert_weight_bytes=part(cost.weight_bytes),
        other_weight_bytes=0,
        activation_bytes=0,
        link_bytes=part(cost.link_bytes),
        flops=0,
    )


def spread_over(
    items: Sequence[_Item], ranks: int, weight: Callable[[_Item], int]
) -> list[tuple[_Item, ...]]:
    """Items over ranks, the heaviest first, each to the lightest rank so far."""
    parts: list[list[_Item]] = [[] for _ in range(ranks)]
    totals = [0] * ranks
    for item in sorted(items, key=weight, reverse=True):
        lightest = totals.index(min(totals))
        parts[lightest].append(item)
        totals[lightest] += weight(item)
    return [tuple(part) for part in parts]
