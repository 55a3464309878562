"""What one iteration costs, and the role that prices a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sim.plan import StepPlan

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


class StepCost(NamedTuple):
    """Price of one iteration of a replica; bytes, FLOPs and joules over all its GPUs.

    Integers first, then joules.

    Attributes:
        duration_ns: Start to end, host overhead included.
        wait_ns: Part of it in which the GPUs sit in a collective or wait for the host.
        extrapolated_ns: Part of it that lies outside profiled ranges.
        extrapolated_experts_ns: Part of that in the experts.
        extrapolated_attention_ns: Part of that in attention.
        extrapolated_head_ns: Part of that in embedding, LM head and their collectives.
        expert_weight_bytes: HBM bytes of expert weights (touched experts only).
        other_weight_bytes: HBM bytes of all other weights.
        kv_bytes: HBM bytes of KV cache read and written.
        activation_bytes: HBM bytes of activations.
        link_bytes: Bytes over the GPU interconnect.
        flops: Floating-point operations, without padding.
        energy_run_j: Energy of busy GPUs beyond the parts below.
        energy_wait_j: Energy while waiting.
        energy_hbm_j: Energy of moving HBM bytes.
        energy_flop_j: Energy of arithmetic.
    """

    duration_ns: int
    wait_ns: int
    extrapolated_ns: int
    extrapolated_experts_ns: int
    extrapolated_attention_ns: int
    extrapolated_head_ns: int
    expert_weight_bytes: int
    other_weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    link_bytes: int
    flops: int
    energy_run_j: float
    energy_wait_j: float
    energy_hbm_j: float
    energy_flop_j: float

    @property
    def hbm_bytes(self) -> int:
        """All HBM bytes of the iteration."""
        return (
            self.expert_weight_bytes
            + self.other_weight_bytes
            + self.kv_bytes
            + self.activation_bytes
        )

    @property
    def energy_j(self) -> float:
        """Total energy of the iteration."""
        return (
            self.energy_run_j
            + self.energy_wait_j
            + self.energy_hbm_j
            + self.energy_flop_j
        )


NUM_COUNTS: Final = StepCost._fields.index("energy_run_j")
"""Fields of a :class:`StepCost` that are integers; the rest are joules."""
NUM_JOULES: Final = len(StepCost._fields) - NUM_COUNTS


@dataclass(frozen=True, slots=True)
class DecodeCosts:
    """Prices of ``k`` iterations in a row that only decode, with the same requests.

    Attributes:
        duration_ns: int64, shape (k,).
        counts: The integers of :class:`StepCost` in its order: the same in all
            iterations, or int64 of shape (k,).
        energy_j: Its joules in its order, float64, shape (k, 4).
    """

    duration_ns: Int64
    counts: tuple[int | Int64, ...]
    energy_j: Float64

    def total(self, steps: int) -> StepCost:
        """Sum over the first ``steps`` of them."""
        counts = [
            each * steps if isinstance(each, int) else int(each[:steps].sum())
            for each in self.counts
        ]
        in_order = np.add.accumulate(self.energy_j[:steps])[-1]
        return StepCost(*counts, *in_order.tolist())


class StepPricer(Protocol):
    """Prices a plan; pure, so equal arguments give equal costs."""

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        """Cost of ``plan`` for ``decoding`` rows that attend to ``context_tokens``."""
        ...


@runtime_checkable
class ClockedPricer(StepPricer, Protocol):
    """Prices plans by what happened before and when; its own for each replica."""

    def begin(self, start_ns: int) -> None:
        """An iteration starts now; :meth:`price` follows."""
        ...


@runtime_checkable
class DecodePricer(StepPricer, Protocol):
    """Also prices iterations that only decode, many at a time."""

    def price_decodes(
        self, decoding: int, context_tokens: int, steps: int
    ) -> DecodeCosts:
        """Cost of each of ``steps`` >= 1 iterations that decode only.

        The first attends to ``context_tokens``, each later one to ``decoding`` more.
        Exactly what :meth:`price` gives for one after the other.
        """
        ...
