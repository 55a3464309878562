"""Price of an iteration's rows whose experts are placed, one layer unlike another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from sim.attention_ranks import AttentionRanks
from sim.expert_layers import ExpertLayers, MoeLayers
from sim.kernel_times import KernelTimes, Timed
from sim.model_work import LayerKind, ModelWork
from sim.plan import LayerSpan, StepPlan
from sim.row_cost import RowCost, RowCosts

_MOST_KEPT: Final = 2048
"""Costs of all layers kept for batches seen before, some 10 kB each."""


class PlacedRowCosts(RowCosts):
    """Rows with experts on the ranks of an expert-parallel group.

    Args:
        experts: Price of the MoE part of every layer.
        kernels: As :class:`~sim.row_cost.RowCosts`; so are the others.
        work: Bytes and FLOPs of the model.
        padded: Maps rows to (rows that run, whether a CUDA graph replays them).
        ranks: Data-parallel ranks of attention.
    """

    def __init__(
        self,
        *,
        experts: ExpertLayers,
        kernels: KernelTimes,
        work: ModelWork,
        padded: Callable[[int], tuple[int, bool]],
        ranks: AttentionRanks,
    ) -> None:
        super().__init__(
            kernels=kernels, coverage=None, work=work, padded=padded, ranks=ranks
        )
        self._placed = experts
        self._cost = lru_cache(_MOST_KEPT)(experts.cost)

    def reductions(self, kind: LayerKind) -> int:
        """All-reduces of a layer."""
        return super().reductions(kind) if kind.leading else self._placed.reductions

    def _key(self, spans: Sequence[LayerSpan], decoding: int) -> tuple[object, ...]:
        layers = tuple(
            (span.first, span.last, tuple([chunk.tokens for chunk in span.prefill]))
            for span in spans
        )
        return (decoding, *layers)

    def _experts(
        self, kind: LayerKind, decoding: int, chunks: tuple[int, ...], run: int
    ) -> tuple[Timed, float]:
        return Timed(0), 0.0  # added by span, see _sum

    def _sum(self, plan: StepPlan, decoding: int) -> RowCost:
        parts = [super()._sum(plan, decoding)]
        for span in plan.spans:
            tokens = tuple(chunk.tokens for chunk in span.prefill)
            if tokens or decoding:
                parts.append(self.moe(span, decoding, tokens))
        rows = decoding + sum(chunk.tokens for chunk in plan.spans[0].prefill)
        once, moved = self._placed.iteration(rows), self._placed.iteration_bytes(rows)
        parts.append(
            RowCost(once.ns, once.ns, once.extrapolated_ns, 0, 0, 0, 0, 0, moved, 0)
        )
        return RowCost(*map(sum, zip(*parts, strict=True)))

    def iteration_ns(self, rows: int) -> int:
        """Communication once per iteration of so many rows."""
        return self._placed.iteration(rows).ns

    def moe(self, span: LayerSpan, decoding: int, chunks: tuple[int, ...]) -> RowCost:
        """Experts and messages of a span's layers, before the engine's factor."""
        _, graph = self._padded(self._ranks.rows(decoding, chunks))
        cost = self._cost(decoding, chunks, graph=graph)
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
