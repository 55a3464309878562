"""Price of an iteration: kernels of every layer span, host overhead, bytes, energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sim.attention_cost import AttentionCosts
from sim.attention_ranks import ONE_RANK, AttentionRanks
from sim.energy import PowerModel
from sim.expert_layers import ExpertLayers
from sim.kernel_times import KernelTimes
from sim.model_work import ModelWork
from sim.placed_rows import PlacedRowCosts
from sim.plan import LayerSpan, StepPlan
from sim.row_cost import Coverage, RowCosts
from sim.step import DecodeCosts, Int64, StepCost


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

    def gap_ns(self, spans: Sequence[LayerSpan], decoding: int, num_layers: int) -> int:
        """Host time of an iteration of these spans, in which the GPUs wait."""
        layers = 0
        for span in spans:
            if span.prefill:
                layers += span.last - span.first
        if not layers:
            return self.decode_ns
        if layers < num_layers:
            return self.layered_ns
        return self.mixed_ns if decoding else self.prefill_ns


class StepCostModel:
    """Closed form of an iteration: kernels run one after the other.

    Per span and layer: projections, norms, attention of each prompt chunk with its
    prefix, attention of the decode batch over its context, experts or dense FFN, and
    all-reduces; per iteration: embedding, LM head, sampling and host overhead. What
    rows cost repeats and is kept (:mod:`sim.row_cost`); attention, which changes every
    iteration, is computed (:mod:`sim.attention_cost`).

    Args:
        kernels: Kernel times of the model on one GPU.
        coverage: Experts touched by a batch; None for dense models.
        work: Bytes and FLOPs of the model.
        host: Host overhead.
        padded: Maps rows to (rows that run, whether a CUDA graph replays them).
        power: Energy of an iteration.
        kernel_factor: On every kernel time.
        ranks: Data-parallel ranks of attention.
        experts: MoE layers of an expert-parallel group, priced rank by rank in place of
            ``coverage`` (:mod:`sim.placed_rows`); None takes the tables' routing.

    Attributes:
        rows: What rows cost.
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
        kernel_factor: float = 1.0,
        ranks: AttentionRanks = ONE_RANK,
        experts: ExpertLayers | None = None,
    ) -> None:
        self._work = work
        self._host = host
        self._decodes = StepPlan((LayerSpan(0, work.num_layers),))
        self._power = power
        self._kernel_factor = kernel_factor
        self._attention = AttentionCosts(kernels=kernels, work=work, ranks=ranks)
        self.rows = (
            RowCosts(
                kernels=kernels,
                coverage=coverage,
                work=work,
                padded=padded,
                ranks=ranks,
            )
            if experts is None
            else PlacedRowCosts(
                kernels=kernels, experts=experts, work=work, padded=padded, ranks=ranks
            )
        )

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        """Cost of ``plan`` for ``decoding`` rows that attend to ``context_tokens``."""
        rows = self.rows.of(plan, decoding)
        attention = self._attention.of(plan, decoding, context_tokens)
        scaled, num_layers = self._scaled, self._work.num_layers
        gap_ns = self._host.gap_ns(plan.spans, decoding, num_layers)
        kernel_ns = scaled(rows.ns + attention.ns)
        duration_ns = kernel_ns + gap_ns + self._busy_ns(decoding)
        wait_ns = scaled(rows.wait_ns) + gap_ns
        flops = rows.flops + attention.flops
        activation_bytes = rows.activation_bytes + attention.activation_bytes
        weight_bytes = rows.expert_weight_bytes + rows.other_weight_bytes
        energy = self._power.split(
            duration_ns=duration_ns,
            wait_ns=wait_ns,
            hbm_bytes=weight_bytes + activation_bytes + attention.kv_bytes,
            flops=flops,
        )
        return StepCost(
            duration_ns,
            wait_ns,
            scaled(rows.extrapolated_ns + attention.extrapolated_ns),
            scaled(rows.extrapolated_experts_ns),
            scaled(attention.extrapolated_ns),
            scaled(rows.extrapolated_head_ns),
            rows.expert_weight_bytes,
            rows.other_weight_bytes,
            attention.kv_bytes,
            activation_bytes,
            rows.link_bytes,
            flops,
            *energy,
        )

    def price_decodes(
        self, decoding: int, context_tokens: int, steps: int
    ) -> DecodeCosts:
        """Costs of ``steps`` iterations that only decode; attention alone changes."""
        rows, gap_ns = self.rows.of(self._decodes, decoding), self._host.decode_ns
        last = context_tokens + decoding * steps
        contexts = np.arange(context_tokens, last, decoding, dtype=np.int64)
        attention = self._attention.of_decodes(decoding, contexts)
        scaled, many = self._scaled, self._scaled_many
        duration_ns = many(rows.ns + attention.ns)
        duration_ns += gap_ns + self._busy_ns(decoding)
        outside = attention.extrapolated_ns
        return DecodeCosts(
            duration_ns=duration_ns,
            counts=(
                duration_ns,
                scaled(rows.wait_ns) + gap_ns,
                scaled(rows.extrapolated_ns)
                if outside is None
                else many(rows.extrapolated_ns + outside),
                scaled(rows.extrapolated_experts_ns),
                0 if outside is None else many(outside),
                scaled(rows.extrapolated_head_ns),
                rows.expert_weight_bytes,
                rows.other_weight_bytes,
                attention.kv_bytes,
                rows.activation_bytes,
                rows.link_bytes,
                rows.flops + attention.flops,
            ),
            power=self._power,
        )

    def kernel_ns(self, plan: StepPlan, decoding: int, context_tokens: int) -> int:
        """Duration of ``plan`` without host overhead."""
        attention = self._attention.of(plan, decoding, context_tokens)
        return self._scaled(self.rows.of(plan, decoding).ns + attention.ns)

    def _scaled(self, ns: int) -> int:
        """Kernel time under the engine's factor."""
        factor = self._kernel_factor
        return ns if factor == 1.0 else round(ns * factor)

    def _scaled_many(self, ns: Int64) -> Int64:
        """As :meth:`_scaled`: NumPy rounds as Python does."""
        factor = self._kernel_factor
        return ns if factor == 1.0 else np.rint(ns * factor).astype(np.int64)

    def _busy_ns(self, decoding: int) -> int:
        """Time of what has no table, in which the GPUs keep running."""
        host = self._host
        return (
            self._work.num_layers * host.per_layer_ns + decoding * host.per_sequence_ns
        )
