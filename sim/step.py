"""What one iteration costs, and the role that prices a plan."""

from __future__ import annotations

from collections.abc import Sequence
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
        return sum(getattr(self, name) for name in HBM_COUNTS)

    @property
    def energy_j(self) -> float:
        """Total energy of the iteration."""
        return (
            self.energy_run_j
            + self.energy_wait_j
            + self.energy_hbm_j
            + self.energy_flop_j
        )

    def part(self, elapsed_ns: int) -> StepCost:
        """What an iteration has cost that is cut off after ``elapsed_ns``.

        All amounts are taken as spread evenly over it; integers are rounded down.
        """
        counts = [n * elapsed_ns // self.duration_ns for n in self[:NUM_COUNTS]]
        joules = [j * elapsed_ns / self.duration_ns for j in self[NUM_COUNTS:]]
        return StepCost._make([*counts, *joules])


HBM_COUNTS: Final = (
    "expert_weight_bytes",
    "other_weight_bytes",
    "activation_bytes",
    "kv_bytes",
)
"""Fields of a :class:`StepCost` that add up to its HBM bytes."""
NUM_COUNTS: Final = StepCost._fields.index("energy_run_j")
"""Fields of a :class:`StepCost` that are integers; the rest are joules."""
NUM_JOULES: Final = len(StepCost._fields) - NUM_COUNTS


class EnergyLaw(Protocol):
    """Energy of many iterations from what they did."""

    def split_many(
        self, *, duration_ns: Int64, wait_ns: Int64, hbm_bytes: Int64, flops: Int64
    ) -> Float64:
        """Joules of each, shape (k, 4), in the order of :class:`StepCost`."""
        ...


@dataclass(frozen=True, slots=True)
class DecodeCosts:
    """Prices of ``k`` iterations in a row that only decode, with the same requests.

    Attributes:
        duration_ns: int64, shape (k,).
        counts: The integers of :class:`StepCost` in its order: the same in all
            iterations, or int64 of shape (k,).
        power: Gives their energy; nobody needs it before the run is over.
    """

    duration_ns: Int64
    counts: tuple[int | Int64, ...]
    power: EnergyLaw

    def at(self, step: int) -> StepCost:
        """Cost of one of them."""
        counts = tuple(c if isinstance(c, int) else c[step:] for c in self.counts)
        later = DecodeCosts(self.duration_ns[step:], counts, self.power)
        return later.total(1)

    def total(self, steps: int) -> StepCost:
        """Sum over the first ``steps`` of them."""
        part = [(self, steps)]
        in_order = np.add.accumulate(decode_joules(part))[-1]
        return StepCost(*decode_sums(part), *in_order.tolist())


DecodeParts = Sequence[tuple[DecodeCosts, int]]
"""Costs of iterations that only decode, and how many of them happened."""


def decode_joules(parts: DecodeParts) -> Float64:
    """Energy of iterations under one law, shape (all steps, 4)."""
    if not parts:
        return np.empty((0, NUM_JOULES))
    steps = [steps for _, steps in parts]

    def each(*names: str) -> Int64:
        """Sum of some counts, for every iteration."""
        where = [StepCost._fields.index(name) for name in names]
        sums = [sum(costs.counts[i] for i in where) for costs, _ in parts]
        return _each(sums, steps)

    return parts[0][0].power.split_many(
        duration_ns=each("duration_ns"),
        wait_ns=each("wait_ns"),
        hbm_bytes=each(*HBM_COUNTS),
        flops=each("flops"),
    )


def decode_sums(parts: DecodeParts) -> list[int]:
    """Sums of the integers of :class:`StepCost`, exact."""
    if not parts:
        return [0] * NUM_COUNTS
    columns = zip(*(costs.counts for costs, _ in parts), strict=True)
    return [_sum(column, [steps for _, steps in parts]) for column in columns]


def _each(values: Sequence[int | Int64], steps: Sequence[int]) -> Int64:
    """A value per iteration."""
    if all(isinstance(value, int) for value in values):
        return np.repeat(np.array(values, dtype=np.int64), steps)
    return np.concatenate(
        [
            np.full(k, value) if isinstance(value, int) else value[:k]
            for value, k in zip(values, steps, strict=True)
        ]
    )


def _sum(values: Sequence[int | Int64], steps: Sequence[int]) -> int:
    """Over all iterations; int64 holds a part's sum, Python's integers hold all."""
    pairs = list(zip(values, steps, strict=True))
    total = sum(value * k for value, k in pairs if isinstance(value, int))
    arrays = [value[:k] for value, k in pairs if not isinstance(value, int)]
    if not arrays:
        return total
    starts = np.cumsum([0, *(each.size for each in arrays[:-1])])
    sums: list[int] = np.add.reduceat(np.concatenate(arrays), starts).tolist()
    return total + sum(sums)


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
