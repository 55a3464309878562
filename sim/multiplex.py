"""Prefill and decode at once on one GPU, each on a share of its SMs (what-if).

The law is the one that models of intra-GPU disaggregation have in common (Nexus, arXiv
2507.06608; Bullet, arXiv 2504.19516): arithmetic slows down by 1 / share, HBM bandwidth
is shared by who asks for it. Kernels at a share are priced by ratios of rooflines, as
on any machine that was not profiled; bandwidth is shared max-min fairly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from sim.energy import PowerModel
from sim.machine.fluid import run_flows
from sim.machine.streams import COMPUTE, HBM, kernel
from sim.plan import LayerSpan, StepPlan
from sim.step import NUM_COUNTS, DecodePricer, StepCost, StepPricer
from sim.step_cost import HostTimes

_HBM_USES: Final = ((HBM, 1),)
_WAIT: Final = StepCost._fields.index("wait_ns")
_TIMES: Final = tuple(
    place
    for place, name in enumerate(StepCost._fields)
    if name.startswith("extrapolated_")
)


class Phase(NamedTuple):
    """Prefill or decode of an iteration, alone on its SMs.

    Attributes:
        cost: Bytes, FLOPs and extrapolated time.
        gap_ns: Host time before it, in which its SMs wait.
        busy_ns: Time after that in which they run without a kernel table.
        kernel_ns: Time of its kernels with all of the bandwidth.
        collective_ns: Part of it in collectives.
    """

    cost: StepCost
    gap_ns: int
    busy_ns: int
    kernel_ns: int
    collective_ns: int

    @property
    def start_ns(self) -> int:
        """When its kernels begin."""
        return self.gap_ns + self.busy_ns


class Overlap(NamedTuple):
    """Two phases of one iteration that began at once, and when each ends (ns)."""

    decode: Phase
    prefill: Phase
    decode_end_ns: int
    prefill_end_ns: int

    @property
    def duration_ns(self) -> int:
        """Until both have ended."""
        return max(self.decode_end_ns, self.prefill_end_ns)

    @property
    def wait_ns(self) -> int:
        """Time in which no SM runs a kernel.

        Collectives lie evenly in the kernels of their phase, and are waited for while
        the other phase runs nothing.
        """
        sides = (
            (self.decode, self.decode_end_ns),
            (self.prefill, self.prefill_end_ns),
        )
        (first, first_end), (second, second_end) = sides
        both = min(first_end, second_end) - max(first.gap_ns, second.gap_ns)
        both = max(both, 0)
        wait_ns = self.duration_ns + both
        for phase, end_ns in sides:
            alone = end_ns - phase.gap_ns - both
            wait_ns -= end_ns - phase.gap_ns
            wait_ns += phase.collective_ns * alone // (end_ns - phase.gap_ns)
        return wait_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedGpus:
    """The GPUs of a replica whose SMs are divided.

    Attributes:
        decode: Prices decodes on their share of the SMs.
        prefill: Prices prompts on the others.
        host: Host overhead; each phase has its own, that of an iteration without the
            other.
        num_layers: Layers of the model.
        hbm_bytes_per_s: HBM bandwidth of all GPUs together.
    """

    decode: StepPricer
    prefill: StepPricer
    host: HostTimes
    num_layers: int
    hbm_bytes_per_s: int

    def run(self, plan: StepPlan, decoding: int, context_tokens: int) -> Overlap:
        """Both phases of a plan, with decodes and prompts, from the same start."""
        alone = StepPlan((LayerSpan(0, self.num_layers),))
        prompts = StepPlan(
            tuple(
                [
                    LayerSpan(s.first, s.last, s.prefill, decode=False)
                    for s in plan.spans
                ]
            )
        )
        layers = sum(span.layers for span in plan.spans if span.prefill)
        host = self.host
        decode = self._phase(
            self.decode.price(alone, decoding, context_tokens),
            host.decode_ns,
            host.decode_ns,
            self.num_layers * host.per_layer_ns,
            decoding * host.per_sequence_ns,
        )
        prefill = self._phase(
            self.prefill.price(prompts, 0, 0),
            host.gap_ns(prompts.spans, 0, self.num_layers),
            host.prefill_ns,
            layers * host.per_layer_ns,
            0,
        )
        return Overlap(decode, prefill, *self._ends_ns(decode, prefill))

    def ends_ns(
        self, plan: StepPlan, decoding: int, context_tokens: int
    ) -> tuple[int, int]:
        """When the decodes and the prompts of a plan end; see :meth:`run`."""
        overlap = self.run(plan, decoding, context_tokens)
        return overlap.decode_end_ns, overlap.prefill_end_ns

    def _phase(
        self, cost: StepCost, priced_ns: int, gap_ns: int, layers_ns: int, rows_ns: int
    ) -> Phase:
        """Take a price apart.

        Args:
            cost: Of the phase as an iteration of its own, with the small kernels and
                gaps of all layers.
            priced_ns: Host time in it.
            gap_ns: Host time of the phase.
            layers_ns: Small kernels and gaps of the layers that it runs.
            rows_ns: The same of decoding requests.
        """
        around_ns = priced_ns + self.num_layers * self.host.per_layer_ns + rows_ns
        kernel_ns = cost.duration_ns - around_ns
        collective_ns = cost.wait_ns - priced_ns
        return Phase(cost, gap_ns, layers_ns + rows_ns, kernel_ns, collective_ns)

    def _ends_ns(self, decode: Phase, prefill: Phase) -> tuple[int, int]:
        """Kernels of a phase are one flow of their bytes; max-min fair on HBM."""
        capacities = (self.hbm_bytes_per_s,)
        arrivals = [
            (
                phase.start_ns,
                kernel(
                    "",
                    COMPUTE,
                    phase.kernel_ns,
                    phase.cost.hbm_bytes,
                    _HBM_USES,
                    capacities,
                ).flow,
            )
            for phase in (decode, prefill)
        ]
        if prefill.start_ns < decode.start_ns:
            prefill_ns, decode_ns = run_flows(arrivals[::-1], capacities)
        else:
            decode_ns, prefill_ns = run_flows(arrivals, capacities)
        return decode_ns, prefill_ns


class MultiplexPricer:
    """Prices iterations with decodes and prompts as both at once on divided SMs.

    An iteration ends when both have ended. One with a single phase has the whole GPU.

    Args:
        whole: Prices iterations on undivided GPUs.
        gpus: Runs both phases.
        power: Energy of an iteration; it is that of all bytes, FLOPs and time, with the
            board's cap.
    """

    def __init__(
        self, whole: DecodePricer, gpus: SharedGpus, power: PowerModel
    ) -> None:
        self._whole = whole
        self._gpus = gpus
        self._power = power
        self.price_decodes = whole.price_decodes

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        """Cost of ``plan``; see :class:`~sim.step.StepPricer`."""
        prompts = any(span.prefill for span in plan.spans)
        if not (prompts and decoding and plan.spans[0].decode):
            return self._whole.price(plan, decoding, context_tokens)
        overlap = self._gpus.run(plan, decoding, context_tokens)
        return self._sum(overlap)

    def _sum(self, overlap: Overlap) -> StepCost:
        duration_ns, wait_ns = overlap.duration_ns, overlap.wait_ns
        costs = (overlap.decode.cost, overlap.prefill.cost)
        sums = [sum(pair) for pair in zip(*costs, strict=True)]
        for place in _TIMES:  # of phases side by side
            sums[place] = min(sums[place], duration_ns)
        sums[0], sums[_WAIT] = duration_ns, wait_ns
        both = StepCost._make(sums)
        energy = self._power.split(
            duration_ns=duration_ns,
            wait_ns=wait_ns,
            hbm_bytes=both.hbm_bytes,
            flops=both.flops,
        )
        return StepCost._make((*both[:NUM_COUNTS], *energy))
