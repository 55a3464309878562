"""MoE layers of an expert-parallel group: slowest rank, straggler waits, messages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from calibration.kernels.exchange import Exchange, Exchanged
from calibration.kernels.experts import Experts
from calibration.kernels.moe_links import MoeLinks
from calibration.kernels.rank_loads import (
    BFLOAT16_BYTES,
    Communication,
    Float,
    MoeShape,
    RankLoads,
)
from calibration.kernels.what_if import MachineScale
from sim.expert_layers import MoeLayers
from sim.kernel_times import Timed


class ExpertParallelLayers:
    """Implements :class:`sim.expert_layers.ExpertLayers` from a placement.

    A rank's experts take the time of their own tokens and touched experts; the layer
    that of the slowest rank, for which the others wait. Loads are expectations.

    Args:
        experts: Kernel of the routed experts.
        links: The group's ranks.
        exchange: Messages to experts and back; None where every rank has all tokens.
        loads: Routing under the placement.
        miss: Probability that decode rows and chunks miss each expert, (L, E).
        shape: Sizes of the model.
        communication: "tp_allreduce": every rank has all tokens, results are summed.
            "ep_home": tokens go to the ranks of their experts and results come home.
            "context_coherent": every rank has every context; a token stays where its
            expert was (ExFlow). With k > 1 experts its home moves to one of theirs,
            where the other results are gathered.
        gather: Time to gather so many bytes onto every rank.
        sharded_attention: Whether attention is tensor-parallel, so that its all-reduce
            stays.
        scale: What-if factors on the machine.
    """

    def __init__(  # noqa: PLR0913  (the parts a layer is made of)
        self,
        *,
        experts: Experts,
        links: MoeLinks,
        exchange: Exchange | None,
        loads: RankLoads,
        miss: Callable[[int, tuple[int, ...]], Float],
        shape: MoeShape,
        communication: Communication,
        gather: Callable[[int], Timed],
        sharded_attention: bool,
        scale: MachineScale,
    ) -> None:
        self._experts, self._links, self._loads = experts, links, loads
        self._exchange = exchange
        self._miss, self._shape, self._mode = miss, shape, communication
        self._gather, self._scale = gather, scale
        summed = communication == "tp_allreduce"
        self.reductions = (1 if sharded_attention else 0) + (
            1 if summed and sharded_attention else 0
        )
        self._gathered = summed and not sharded_attention
        self._held = loads.shares > 0

    def cost(self, decoding: int, chunks: tuple[int, ...], *, graph: bool) -> MoeLayers:
        """Every layer's MoE part for decode rows and chunks of prompts."""
        rows = decoding + sum(chunks)
        touched = self._touched(decoding, chunks)
        pairs = rows * self._shape.top_k * self._loads.load
        times, outside = self._experts.on_ranks(rows, touched, pairs)
        times = times * self._what_if(rows, float(touched.sum(axis=1).mean()))
        slowest = np.rint(times.max(axis=1)).astype(np.int64)
        idle = np.rint(times.max(axis=1) - times.mean(axis=1)).astype(np.int64)
        ns, extra, moved = self._messages(rows, prompts=bool(chunks))
        experts_outside = slowest if outside else np.zeros_like(slowest)
        weights = np.rint(touched.sum(axis=1) * self._shape.expert_bytes)
        return MoeLayers(
            ns=_running(slowest + ns),
            wait_ns=_running(idle + ns),
            extrapolated_ns=_running(experts_outside + extra),
            extrapolated_experts_ns=_running(experts_outside),
            weight_bytes=_running(weights.astype(np.int64)),
            link_bytes=_running(moved),
        )

    def iteration(self, rows: int) -> Timed:
        """Gathering new contexts onto every rank, in context-coherent mode."""
        if self._mode != "context_coherent":
            return Timed(0)
        return self._gather(rows * self._shape.hidden_size * BFLOAT16_BYTES)

    def iteration_bytes(self, rows: int) -> int:
        """Bytes of that gather: each rank receives the others' tokens."""
        if self._mode != "context_coherent":
            return 0
        others = self._links.ranks - 1
        return rows * others * self._shape.hidden_size * BFLOAT16_BYTES

    def _what_if(self, rows: int, touched: float) -> float:
        """Factor of another machine's bandwidth and peak on the experts' time."""
        if self._scale.unchanged:
            return 1.0
        weights, flops = self._experts.work(rows, touched)
        unit = Timed(1_000_000_000)
        return self._scale.apply(unit, hbm_bytes=weights, flops=flops).ns / unit.ns

    def _touched(self, decoding: int, chunks: tuple[int, ...]) -> Float:
        """Expected experts touched on each rank; a copy gets its share of tokens."""
        missed = np.maximum(self._miss(decoding, chunks), 1e-300)
        copies = self._loads.shares
        held = np.where(self._held, -np.expm1(np.log(missed)[:, :, None] * copies), 0.0)
        total: Float = held.sum(axis=1)
        return total

    def _messages(self, rows: int, *, prompts: bool) -> Exchanged:
        zero = np.zeros(len(self._loads.load), dtype=np.int64)
        if self._gathered:
            return self._gather_all(rows, zero)
        if self._exchange is None:
            return Exchanged(zero, zero, zero)
        return self._exchange.cost(rows, prompts=prompts)

    def _gather_all(self, rows: int, zero: npt.NDArray[np.int64]) -> Exchanged:
        """Data-parallel attention without all-to-all: gather all, scatter sums."""
        message = rows * self._shape.hidden_size * BFLOAT16_BYTES
        timed = self._gather(message)
        # A reduce-scatter moves the bytes of the gather in the other direction.
        moved = 2 * message * (self._links.ranks - 1)
        return Exchanged(
            zero + 2 * timed.ns, zero + 2 * timed.extrapolated_ns, zero + moved
        )


def _running(values: npt.NDArray[np.int64]) -> tuple[int, ...]:
    return (0, *np.cumsum(values).tolist())
