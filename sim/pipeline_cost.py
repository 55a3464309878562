"""Price of an iteration of a replica whose layers are spread over a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sim.attention_cost import AttentionCosts
from sim.attention_ranks import ONE_RANK, AttentionRanks
from sim.energy import PowerModel
from sim.kernel_times import KernelTimes
from sim.micro_batches import MicroBatch, micro_batches
from sim.model_work import ModelWork
from sim.pipeline import period_ns
from sim.plan import StepPlan
from sim.row_cost import Coverage
from sim.stage_rows import StageRowCosts
from sim.stages import Stage
from sim.step import NUM_JOULES, StepCost
from sim.step_cost import HostTimes

_NO_JOULES: Final = (0.0,) * NUM_JOULES


class StageLinks(Protocol):
    """What carries activations from one stage to the next."""

    def send_ns(self, stage: int, rows: int) -> int:
        """Time from the end of ``stage`` until the next one has ``rows`` rows."""
        ...

    def send_bytes(self, rows: int) -> int:
        """Bytes of that over all links."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """How a replica is spread over stages.

    Attributes:
        stages: In order, from layer 0 to the last.
        links: Between them.
        micro_batches: The most that are in flight at once.
        budget: Prompt tokens a micro-batch may hold.
    """

    stages: tuple[Stage, ...]
    links: StageLinks
    micro_batches: int
    budget: int


class PipelineCostModel:
    """Closed form of a round: every micro-batch once through all stages.

    As engines run it, a batch per stage is in flight (vLLM's ``step_with_batch_queue``)
    and the next round follows without a break: a round takes the period after which
    the same could begin again (:func:`sim.pipeline.period_ns`). The host is a stage
    before the first: it prepares one micro-batch while the GPUs are at others. Kernels
    of a micro-batch on a stage are priced as those of :class:`sim.step_cost.
    StepCostModel`. Parts of the duration are means over the stages, so that times the
    GPUs of the replica they are GPU seconds; bubbles count as waiting.

    Args:
        kernels: Kernel times of the model on one GPU.
        coverage: Experts touched by a batch; None for dense models.
        work: Bytes and FLOPs of the model.
        host: Host overhead.
        padded: Maps rows to (rows that run, whether a CUDA graph replays them).
        power: Energy of an iteration, of all GPUs.
        pipeline: Stages, links and micro-batches.
        kernel_factor: On every kernel time.
        ranks: Data-parallel ranks of attention in a stage.
    """

    def __init__(  # noqa: PLR0913  (what an iteration is made of)
        self,
        *,
        kernels: KernelTimes,
        coverage: Coverage | None,
        work: ModelWork,
        host: HostTimes,
        padded: Callable[[int], tuple[int, bool]],
        power: PowerModel,
        pipeline: Pipeline,
        kernel_factor: float = 1.0,
        ranks: AttentionRanks = ONE_RANK,
    ) -> None:
        self._work = work
        self._host = host
        self._power = power
        self._pipeline = pipeline
        self._factor = kernel_factor
        self._stages = [
            (
                stage,
                StageRowCosts(
                    stage,
                    kernels=kernels,
                    coverage=coverage,
                    work=work,
                    padded=padded,
                    ranks=ranks,
                ),
                AttentionCosts(
                    kernels=kernels,
                    work=work,
                    ranks=ranks,
                    layers=(stage.first, stage.last),
                ),
            )
            for stage in pipeline.stages
        ]

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        """Cost of ``plan`` for ``decoding`` rows that attend to ``context_tokens``."""
        parts = self._split(plan, decoding, context_tokens)
        cells, rows = self._cells(parts), self._sent(parts)
        duration_ns = self._period_ns(parts, cells, rows, host=True)
        return self._sum(cells, rows, duration_ns)

    def _sum(
        self,
        cells: Sequence[Sequence[StepCost]],
        rows: Sequence[Sequence[int]],
        duration_ns: int,
    ) -> StepCost:
        """Cost of a round that takes ``duration_ns``."""
        count, links = len(cells), self._pipeline.links
        every = (cell for row in cells for cell in row)
        sums = StepCost(*map(sum, zip(*every, strict=True)))
        wait_ns = duration_ns - (sums.duration_ns - sums.wait_ns) // count
        energy = self._power.split(
            duration_ns=duration_ns,
            wait_ns=wait_ns,
            hbm_bytes=sums.hbm_bytes,
            flops=sums.flops,
        )
        return sums._replace(
            duration_ns=duration_ns,
            wait_ns=wait_ns,
            extrapolated_ns=sums.extrapolated_ns // count,
            extrapolated_experts_ns=sums.extrapolated_experts_ns // count,
            extrapolated_attention_ns=sums.extrapolated_attention_ns // count,
            extrapolated_head_ns=sums.extrapolated_head_ns // count,
            link_bytes=sums.link_bytes + sum(map(links.send_bytes, map(sum, rows))),
            energy_run_j=energy.run_j,
            energy_wait_j=energy.wait_j,
            energy_hbm_j=energy.hbm_j,
            energy_flop_j=energy.flop_j,
        )

    def kernel_ns(self, plan: StepPlan, decoding: int, context_tokens: int) -> int:
        """Duration of ``plan`` without host overhead."""
        parts = self._split(plan, decoding, context_tokens)
        cells, rows = self._cells(parts), self._sent(parts)
        return self._period_ns(parts, cells, rows, host=False)

    def _split(
        self, plan: StepPlan, decoding: int, context_tokens: int
    ) -> list[MicroBatch]:
        """The micro-batches of an iteration."""
        decodes = plan.spans[0].decode
        return micro_batches(
            plan,
            decoding if decodes else 0,
            context_tokens if decodes else 0,
            most=self._pipeline.micro_batches,
            budget=self._pipeline.budget,
        )

    def _cells(self, parts: Sequence[MicroBatch]) -> list[list[StepCost]]:
        """Every micro-batch on every stage."""
        return [
            [self._cell(stage, rows, attention, part) for part in parts]
            for stage, rows, attention in self._stages
        ]

    def _cell(
        self,
        stage: Stage,
        row_costs: StageRowCosts,
        attention_costs: AttentionCosts,
        part: MicroBatch,
    ) -> StepCost:
        """A micro-batch on a stage, but for energy."""
        decoding, host, scaled = part.decoding, self._host, self._scaled
        rows = row_costs.of(StepPlan(part.spans), decoding)
        inside = StepPlan(stage.clip(part.spans))
        attention = attention_costs.of(inside, decoding, part.context_tokens)
        busy_ns = stage.layers * host.per_layer_ns
        busy_ns += stage.heads * decoding * host.per_sequence_ns
        return StepCost(
            scaled(rows.ns + attention.ns) + busy_ns,
            scaled(rows.wait_ns),
            scaled(rows.extrapolated_ns + attention.extrapolated_ns),
            scaled(rows.extrapolated_experts_ns),
            scaled(attention.extrapolated_ns),
            scaled(rows.extrapolated_head_ns),
            rows.expert_weight_bytes,
            rows.other_weight_bytes,
            attention.kv_bytes,
            rows.activation_bytes + attention.activation_bytes,
            rows.link_bytes,
            rows.flops + attention.flops,
            *_NO_JOULES,
        )

    def _sent(self, parts: Sequence[MicroBatch]) -> list[list[int]]:
        """Rows of every micro-batch that go from each stage to the next.

        Those of prompts do in the iteration that takes them through its last layer.
        """
        return [
            [part.decoding + _prompt_rows(part, stage.last - 1) for part in parts]
            for stage in self._pipeline.stages[:-1]
        ]

    def _period_ns(
        self,
        parts: Sequence[MicroBatch],
        cells: Sequence[Sequence[StepCost]],
        rows: Sequence[Sequence[int]],
        *,
        host: bool,
    ) -> int:
        """Duration of the round, with the host as a stage or without."""
        links, none = self._pipeline.links, [0] * len(parts)
        times = [[cell.duration_ns for cell in row] for row in cells]
        delays = [
            [links.send_ns(stage, n) if n else 0 for n in row]
            for stage, row in enumerate(rows)
        ]
        delays.append(none)
        if host:
            layers = self._work.num_layers
            gaps = [self._host.gap_ns(p.spans, p.decoding, layers) for p in parts]
            times, delays = [gaps, *times], [none, *delays]
        return period_ns(times, delays)

    def _scaled(self, ns: int) -> int:
        """Kernel time under the engine's factor."""
        return ns if self._factor == 1.0 else round(ns * self._factor)


def _prompt_rows(part: MicroBatch, layer: int) -> int:
    """Prompt tokens that go through a layer."""
    span = next(span for span in part.spans if span.first <= layer < span.last)
    return sum(chunk.tokens for chunk in span.prefill)
