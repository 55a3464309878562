"""Price of an iteration of a replica whose layers are spread over a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from sim.attention_cost import AttentionCosts
from sim.attention_ranks import ONE_RANK, AttentionRanks
from sim.energy import PowerModel
from sim.kernel_times import KernelTimes
from sim.micro_batches import MicroBatch, context_share, micro_batches
from sim.model_work import ModelWork
from sim.pipeline import period_ns
from sim.plan import LayerSpan, StepPlan
from sim.row_cost import Coverage
from sim.stage_rows import StageRowCosts
from sim.stages import Stage
from sim.step import NUM_JOULES, DecodeCosts, Int64, StepCost
from sim.step_cost import HostTimes

_NO_JOULES: Final = (0.0,) * NUM_JOULES
_PARTS: Final = 4
"""Counts after duration and wait that are parts of the duration, extrapolated ones."""
_Counts = tuple[Any, ...]
"""The integers of a :class:`StepCost`: int, or int64 over many rounds."""
Grid = list[list[_Counts]]
"""Counts of every micro-batch on every stage; durations are busy times there."""


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


class _StageCosts(NamedTuple):
    """Price lists of a stage."""

    stage: Stage
    rows: StageRowCosts
    attention: AttentionCosts


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
        self._decodes = StepPlan((LayerSpan(0, work.num_layers),))
        self._stages = [
            _StageCosts(
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
        none = [0] * len(parts)
        times = [self._gaps(parts), *([cell[0] for cell in row] for row in cells)]
        duration_ns = period_ns(times, [none, *self._delays(rows), none])
        cost = StepCost(*self._totals(cells, rows, duration_ns), *_NO_JOULES)
        energy = self._power.split(
            duration_ns=duration_ns,
            wait_ns=cost.wait_ns,
            hbm_bytes=cost.hbm_bytes,
            flops=cost.flops,
        )
        return cost._replace(
            energy_run_j=energy.run_j,
            energy_wait_j=energy.wait_j,
            energy_hbm_j=energy.hbm_j,
            energy_flop_j=energy.flop_j,
        )

    def price_decodes(
        self, decoding: int, context_tokens: int, steps: int
    ) -> DecodeCosts:
        """Costs of ``steps`` rounds that only decode; attention alone changes."""
        parts = self._split(self._decodes, decoding, context_tokens)
        rows = self._sent(parts)
        contexts = np.arange(
            context_tokens, context_tokens + decoding * steps, decoding, dtype=np.int64
        )
        bounds = list(accumulate((part.decoding for part in parts), initial=0))
        shares = [context_share(contexts, decoding, *ends) for ends in pairwise(bounds)]
        cells = [
            [self._decode_cell(at, *part) for part in zip(parts, shares, strict=True)]
            for at in self._stages
        ]
        duration_ns = self._periods_ns(parts, cells, rows)
        counts = self._totals(cells, rows, duration_ns)
        return DecodeCosts(duration_ns=duration_ns, counts=counts, power=self._power)

    def _periods_ns(
        self,
        parts: Sequence[MicroBatch],
        cells: Grid,
        rows: Sequence[Sequence[int]],
    ) -> Int64:
        """Durations of rounds; all but attention is the same in them."""
        gaps, none = self._gaps(parts), [0] * len(parts)
        delays = [none, *self._delays(rows), none]
        times = np.array([[cell[0] for cell in row] for row in cells])
        grids = np.moveaxis(times, -1, 0).tolist()
        return np.array([period_ns([gaps, *grid], delays) for grid in grids], np.int64)

    def _totals(
        self, cells: Grid, rows: Sequence[Sequence[int]], duration_ns: int | Int64
    ) -> _Counts:
        """Counts of rounds that take ``duration_ns``."""
        every = (cell for row in cells for cell in row)
        busy_ns, waits_ns, *sums = (sum(column) for column in zip(*every, strict=True))
        count, links = len(cells), self._pipeline.links
        *moved, link_bytes, flops = sums[_PARTS:]
        link_bytes = link_bytes + sum(map(links.send_bytes, map(sum, rows)))
        wait_ns = duration_ns - (busy_ns - waits_ns) // count
        parts = (ns // count for ns in sums[:_PARTS])
        return (duration_ns, wait_ns, *parts, *moved, link_bytes, flops)

    def kernel_ns(self, plan: StepPlan, decoding: int, context_tokens: int) -> int:
        """Duration of ``plan`` without host overhead."""
        parts = self._split(plan, decoding, context_tokens)
        times = [[cell[0] for cell in row] for row in self._cells(parts)]
        return period_ns(times, [*self._delays(self._sent(parts)), [0] * len(parts)])

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

    def _cells(self, parts: Sequence[MicroBatch]) -> Grid:
        """Every micro-batch on every stage."""
        return [[self._cell(at, part) for part in parts] for at in self._stages]

    def _cell(self, at: _StageCosts, part: MicroBatch) -> _Counts:
        inside = StepPlan(at.stage.clip(part.spans))
        attention = at.attention.of(inside, part.decoding, part.context_tokens)
        return self._counts(at, part, attention)

    def _decode_cell(
        self, at: _StageCosts, part: MicroBatch, contexts: Int64
    ) -> _Counts:
        """As :meth:`_cell`, in many rounds that only decode."""
        many = at.attention.of_decodes(part.decoding, contexts)
        outside = 0 if many.extrapolated_ns is None else many.extrapolated_ns
        attention = (many.ns, outside, many.kv_bytes, 0, many.flops)
        return self._counts(at, part, attention)

    def _counts(
        self, at: _StageCosts, part: MicroBatch, attention: tuple[Any, ...]
    ) -> _Counts:
        """Counts of a micro-batch on a stage; ``attention`` as :class:`Attention`."""
        stage, host, scaled = at.stage, self._host, self._scaled
        rows = at.rows.of(StepPlan(part.spans), part.decoding)
        busy_ns = stage.layers * host.per_layer_ns
        busy_ns += stage.heads * part.decoding * host.per_sequence_ns
        ns, outside, kv_bytes, activation_bytes, flops = attention
        return (
            scaled(rows.ns + ns) + busy_ns,
            scaled(rows.wait_ns),
            scaled(rows.extrapolated_ns + outside),
            scaled(rows.extrapolated_experts_ns),
            scaled(outside),
            scaled(rows.extrapolated_head_ns),
            rows.expert_weight_bytes,
            rows.other_weight_bytes,
            kv_bytes,
            rows.activation_bytes + activation_bytes,
            rows.link_bytes,
            rows.flops + flops,
        )

    def _sent(self, parts: Sequence[MicroBatch]) -> list[list[int]]:
        """Rows of every micro-batch that go from each stage to the next.

        Those of prompts do in the iteration that takes them through its last layer.
        """
        return [
            [part.decoding + _prompt_rows(part, stage.last - 1) for part in parts]
            for stage in self._pipeline.stages[:-1]
        ]

    def _gaps(self, parts: Sequence[MicroBatch]) -> list[int]:
        """Host time of every micro-batch."""
        gap_ns, layers = self._host.gap_ns, self._work.num_layers
        return [gap_ns(part.spans, part.decoding, layers) for part in parts]

    def _delays(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """Time of every micro-batch from each stage to the next."""
        send_ns = self._pipeline.links.send_ns
        return [
            [send_ns(stage, sent) if sent else 0 for sent in row]
            for stage, row in enumerate(rows)
        ]

    def _scaled(self, ns: Any) -> Any:
        """Kernel time under the engine's factor; NumPy rounds as Python does."""
        if self._factor == 1.0:
            return ns
        if isinstance(ns, int):
            return round(ns * self._factor)
        return np.rint(ns * self._factor).astype(np.int64)


def _prompt_rows(part: MicroBatch, layer: int) -> int:
    """Prompt tokens that go through a layer."""
    span = next(span for span in part.spans if span.first <= layer < span.last)
    return sum(chunk.tokens for chunk in span.prefill)
