"""Iterations under a lower power cap than that of the profiled board: unvalidated."""

from __future__ import annotations

from sim.energy import PowerModel
from sim.plan import StepPlan
from sim.step import StepCost, StepPricer
from sim.units import NS_PER_S, s_from_ns


class ThrottledPricer:
    """Stretches iterations until their mean power is within the cap.

    Bytes and FLOPs keep their energy, and the power of running kernels goes on for
    longer: the time t that solves E(t) = P_cap t in the additive model of
    :class:`~sim.energy.PowerModel`. A real board lowers clock and voltage, which saves
    energy too, so this overstates both time and energy.

    Args:
        pricer: Prices plans at the profiled board's own limit.
        power: With the cap, which is above the power of running kernels.
    """

    def __init__(self, pricer: StepPricer, power: PowerModel) -> None:
        self._pricer = pricer
        self._power = power

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        """Cost of ``plan``, perhaps over a longer time."""
        cost = self._pricer.price(plan, decoding, context_tokens)
        duration_ns = max(cost.duration_ns, self._capped_ns(cost))
        energy = self._power.split(
            duration_ns=duration_ns,
            wait_ns=cost.wait_ns,
            hbm_bytes=cost.hbm_bytes,
            flops=cost.flops,
        )
        return cost._replace(
            duration_ns=duration_ns,
            energy_run_j=energy.run_j,
            energy_wait_j=energy.wait_j,
            energy_hbm_j=energy.hbm_j,
            energy_flop_j=energy.flop_j,
        )

    def _capped_ns(self, cost: StepCost) -> int:
        """Time after which the mean power is that of the cap."""
        power = self._power
        work_pj = (
            power.hbm_pj_per_byte * cost.hbm_bytes + power.pj_per_flop * cost.flops
        )
        waiting_w = power.num_gpus * (power.gap_w - power.run_w)
        fixed_j = work_pj * 1e-12 + waiting_w * s_from_ns(cost.wait_ns)
        room_w = power.num_gpus * (power.cap_w - power.run_w)
        return round(fixed_j / room_w * NS_PER_S)
