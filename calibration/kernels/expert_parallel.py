"""MoE layers of an expert-parallel group: slowest rank, straggler waits, messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from calibration.kernels.experts import Experts
from calibration.kernels.moe_links import MoeLinks
from calibration.kernels.what_if import MachineScale
from sim.expert_layers import MoeLayers
from sim.kernel_times import Timed

Float = npt.NDArray[np.float64]
Communication = Literal["tp_allreduce", "ep_home", "context_coherent"]
_BFLOAT16_BYTES = 2
# DeepEP dispatches fp8 with one 4-byte scale per 128 values.
DISPATCH_BYTES = {"bfloat16": 2.0, "fp8": 1.0 + 4 / 128}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankLoads:
    """What a placement does to routing, per layer.

    Attributes:
        shares: Share of an expert's tokens on each rank, (L, E, G).
        load: Share of pairs per rank, (L, G).
        needed: Probability that a token needs a rank, (L, G).
        node_needed: The same for a node, (L, N).
        stays: Expected experts of a token's next layer on its rank, (L,); of the
            first layer by chance.
        stays_in_node: The same for its node.
    """

    shares: Float
    load: Float
    needed: Float
    node_needed: Float
    stays: Float
    stays_in_node: Float


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeShape:
    """Sizes the messages and weights depend on."""

    hidden_size: int
    top_k: int
    expert_bytes: float
    dispatch_dtype: str = "bfloat16"


class ExpertParallelLayers:
    """Implements :class:`sim.expert_layers.ExpertLayers` from a placement.

    A rank's experts take the time of their own tokens and touched experts; the layer
    that of the slowest rank, for which the others wait. Loads are expectations.

    Args:
        experts: Kernel of the routed experts.
        links: All-to-all times.
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
        loads: RankLoads,
        miss: Callable[[int, tuple[int, ...]], Float],
        shape: MoeShape,
        communication: Communication,
        gather: Callable[[int], Timed],
        sharded_attention: bool,
        scale: MachineScale,
    ) -> None:
        self._experts, self._links, self._loads = experts, links, loads
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
        ns, extra, moved = self._messages(rows)
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
        return self._gather(rows * self._shape.hidden_size * _BFLOAT16_BYTES)

    def iteration_bytes(self, rows: int) -> int:
        """Bytes of that gather: each rank receives the others' tokens."""
        if self._mode != "context_coherent":
            return 0
        others = self._links.ranks - 1
        return rows * others * self._shape.hidden_size * _BFLOAT16_BYTES

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

    def _messages(
        self, rows: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Communication time, its extrapolated part and link bytes, by layer."""
        layers = len(self._loads.load)
        zero = np.zeros(layers, dtype=np.int64)
        if self._gathered:
            return self._gather_all(rows, zero)
        if self._mode == "tp_allreduce" or self._links.ranks == 1:
            return zero, zero.copy(), zero.copy()
        out, back = self._copies()
        size = self._shape.hidden_size
        outbound = size * DISPATCH_BYTES[self._shape.dispatch_dtype]
        inbound = float(size * _BFLOAT16_BYTES)
        ns, outside = zero.copy(), zero.copy()
        moved = np.zeros(layers)
        for copies, width in ((out, outbound), (back, inbound)):
            near, far, total = (part * rows * width for part in copies)
            for layer in range(layers):
                if total[layer] <= 0:
                    continue
                timed = self._links.all_to_all(float(near[layer]), float(far[layer]))
                ns[layer] += timed.ns
                outside[layer] += timed.extrapolated_ns
            moved += total
        return ns, outside, np.rint(moved).astype(np.int64)

    def _gather_all(
        self, rows: int, zero: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Data-parallel attention without all-to-all: gather all, scatter sums."""
        message = rows * self._shape.hidden_size * _BFLOAT16_BYTES
        timed = self._gather(message)
        # A reduce-scatter moves the bytes of the gather in the other direction.
        moved = 2 * message * (self._links.ranks - 1)
        return zero + 2 * timed.ns, zero + 2 * timed.extrapolated_ns, zero + moved

    def _copies(self) -> tuple[tuple[Float, Float, Float], tuple[Float, Float, Float]]:
        """Copies per token on the way out and back.

        In-node and NIC copies of the busiest rank (of all tokens), and of all ranks.
        """
        loads, links = self._loads, self._links
        ranks, nodes = links.ranks, links.ranks // links.ranks_per_node
        distinct, by_node = loads.needed.sum(axis=1), loads.node_needed.sum(axis=1)
        if self._mode == "ep_home":
            # Homes are spread evenly: a needed rank is another one but 1 time in G.
            remote, over_nic = distinct * (1 - 1 / ranks), by_node * (1 - 1 / nodes)
            skew = np.maximum(loads.needed.max(axis=1) * ranks / distinct, 1.0)
            both = _busiest(remote, over_nic, skew, ranks)
            return both, both
        at_home = np.minimum(loads.stays, 1.0)
        in_node = np.minimum(loads.stays_in_node, 1.0)
        skew = np.maximum(loads.needed.max(axis=1) * ranks / distinct, 1.0)
        out = _busiest(distinct - at_home, by_node - in_node, skew, ranks)
        back = _busiest(distinct - 1.0, by_node - 1.0, skew, ranks)
        return out, back


def _busiest(
    remote: Float, over_nic: Float, skew: Float, ranks: int
) -> tuple[Float, Float, Float]:
    """Copies of all tokens that the busiest rank moves, and that all move.

    A token crosses to a node once; ranks of that node pass it on over NVLink.
    """
    remote = np.maximum(remote, 0.0)
    over_nic = np.clip(over_nic, 0.0, remote)
    return remote * skew / ranks, over_nic * skew / ranks, remote


def _running(values: npt.NDArray[np.int64]) -> tuple[int, ...]:
    return (0, *np.cumsum(values).tolist())
