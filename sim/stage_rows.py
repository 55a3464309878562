"""Price of the rows of a micro-batch on one stage of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sim.attention_ranks import AttentionRanks
from sim.kernel_times import KernelTimes, Timed
from sim.model_work import ModelWork
from sim.plan import LayerSpan, StepPlan
from sim.row_cost import Coverage, RowCost, RowCosts
from sim.stages import Stage

_NOTHING: Final = RowCost(*[0] * len(RowCost._fields))


class StageRowCosts(RowCosts):
    """As :class:`RowCosts`, of the layers of one stage; asked with whole plans.

    The first stage embeds, the last one computes logits and samples; over all stages
    the parts add up to what one stage of all layers takes.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        kernels: KernelTimes,
        coverage: Coverage | None,
        work: ModelWork,
        padded: Callable[[int], tuple[int, bool]],
        ranks: AttentionRanks,
    ) -> None:
        super().__init__(
            kernels=kernels,
            coverage=coverage,
            work=work,
            padded=padded,
            ranks=ranks,
        )
        self._stage = stage

    def _key(self, spans: Sequence[LayerSpan], decoding: int) -> tuple[object, ...]:
        """Which layers prefill matters here."""
        return (
            decoding,
            *(
                (span.first, span.last, tuple(chunk.tokens for chunk in span.prefill))
                for span in spans
            ),
        )

    def _sum(self, plan: StepPlan, decoding: int) -> RowCost:
        inside = self._stage.clip(plan.spans)
        parts = [self._head(plan, decoding), *self._span_costs(inside, decoding)]
        return RowCost(*map(sum, zip(*parts, strict=True)))

    def _head(self, plan: StepPlan, decoding: int) -> RowCost:
        """What of embedding, LM head and their collectives runs on this stage."""
        kernels, work, stage = self._kernels, self._work, self._stage
        share = self._ranks.share
        rows = decoding + sum(chunk.tokens for chunk in plan.spans[0].prefill)
        logit_rows = decoding + sum(len(span.prefill) for span in plan.spans)
        run, graph = self._padded(share(rows)) if rows else (0, True)
        embedding, cost = kernels.embedding(run), _NOTHING
        if stage.embeds:
            reduce = kernels.all_reduce(run, graph=graph) if rows else Timed(0)
            cost = _end(embedding, reduce, 0, rows * work.all_reduce_bytes, 0)
        if stage.heads:
            both = kernels.head(run, share(logit_rows))
            head = Timed(
                both.ns - embedding.ns, both.extrapolated_ns - embedding.extrapolated_ns
            )
            logits = _end(
                head,
                kernels.gather_logits(share(logit_rows)),
                work.head_weight_bytes,
                logit_rows * work.gather_bytes,
                logit_rows * work.head_flops,
            )
            cost = RowCost(*map(sum, zip(cost, logits, strict=True)))
        return cost


def _end(
    kernel: Timed, collective: Timed, weight_bytes: int, link_bytes: int, flops: int
) -> RowCost:
    """A kernel at either end of the model, and the collective after it."""
    outside = kernel.extrapolated_ns + collective.extrapolated_ns
    return _NOTHING._replace(
        ns=kernel.ns + collective.ns,
        wait_ns=collective.ns,
        extrapolated_ns=outside,
        extrapolated_head_ns=outside,
        other_weight_bytes=weight_bytes,
        link_bytes=link_bytes,
        flops=flops,
    )
