"""KV blocks between the GPUs of a replica and host memory: time, bytes, energy."""

from __future__ import annotations

from dataclasses import dataclass

from sim.energy import PowerModel
from sim.plan import StepPlan, SwapPlan
from sim.step import DecodePricer, StepCost, StepPricer


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLink:
    """Copies of KV blocks over the link between each GPU and its host.

    All GPUs of a replica copy their share of a block at the same time, each over lanes
    of its own. Blocks go one after the other, in either direction, on the stream the
    model runs on: the iteration waits for them (vLLM V0, ``cache_kernels.cu``).

    Attributes:
        block_ns: Time of one block, in or out.
        block_bytes: Bytes of one block, over all GPUs of the replica.
    """

    block_ns: int
    block_bytes: int

    def copy_cost(self, blocks: int, power: PowerModel) -> StepCost:
        """What copies of some blocks add to an iteration.

        The GPUs wait, and their HBM is read or written once; the link's own energy is
        not known.
        """
        duration_ns, hbm_bytes = blocks * self.block_ns, blocks * self.block_bytes
        energy = power.split(
            duration_ns=duration_ns, wait_ns=duration_ns, hbm_bytes=hbm_bytes, flops=0
        )
        return _NOTHING._replace(
            duration_ns=duration_ns,
            wait_ns=duration_ns,
            kv_bytes=hbm_bytes,
            energy_run_j=energy.run_j,
            energy_wait_j=energy.wait_j,
            energy_hbm_j=energy.hbm_j,
            energy_flop_j=energy.flop_j,
        )


_NOTHING = StepCost(*[0] * len(StepCost._fields))


class SwapPricer:
    """Prices plans, and the copies that iterations begin with.

    Args:
        pricer: Prices what follows the copies.
        link: Carries the copies.
        power: Energy of a replica's boards.
    """

    def __init__(self, pricer: StepPricer, link: HostLink, power: PowerModel) -> None:
        self._pricer = pricer
        self._link = link
        self._power = power

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        """Cost of ``plan``; see :class:`~sim.step.StepPricer`."""
        cost = self._pricer.price(plan, decoding, context_tokens)
        if not isinstance(plan, SwapPlan):
            return cost
        blocks = plan.blocks_in + plan.blocks_out
        copies = self._link.copy_cost(blocks, self._power)
        return StepCost._make(map(sum, zip(cost, copies, strict=True)))


class SwapDecodePricer(SwapPricer):
    """The same where runs of decodes, which copy nothing, are priced many at a time.

    Args:
        pricer: See :class:`~sim.step.DecodePricer`.
        link: Carries the copies.
        power: Energy of a replica's boards.
    """

    def __init__(self, pricer: DecodePricer, link: HostLink, power: PowerModel) -> None:
        super().__init__(pricer, link, power)
        self.price_decodes = pricer.price_decodes


def swap_pricer(pricer: StepPricer, link: HostLink, power: PowerModel) -> StepPricer:
    """``pricer`` with copies between GPU and host."""
    if isinstance(pricer, DecodePricer):
        return SwapDecodePricer(pricer, link, power)
    return SwapPricer(pricer, link, power)
