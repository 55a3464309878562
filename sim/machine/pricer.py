"""Price of an iteration whose kernels run on streams and share HBM and links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sim.energy import PowerModel
from sim.machine.iteration import HOST, IterationKernels
from sim.machine.max_min import Rate
from sim.machine.streams import COMMUNICATION, Schedule, run_streams
from sim.plan import StepPlan
from sim.step import StepCost, StepPricer


@dataclass(slots=True)
class FidelityMeter:
    """What kernel fidelity changed in a run, added up over its iterations.

    Attributes:
        events: Kernels and collectives that ran.
        kernel_ns: Duration of all iterations.
        iteration_ns: What the closed form says of them.
        communication_ns: Time in which the communication stream was busy.
        exposed_ns: Part of it in which nothing was computed.
    """

    events: int = 0
    kernel_ns: int = 0
    iteration_ns: int = 0
    communication_ns: int = 0
    exposed_ns: int = 0


class ScheduleCheck(Protocol):
    """Holds the machine's laws against the schedule of an iteration."""

    def __call__(
        self,
        schedule: Schedule,
        capacities: tuple[int, ...],
        told: list[tuple[int, dict[int, Rate]]],
    ) -> None:
        """Raise an InvariantError if one is broken."""
        ...


class KernelPricer:
    """Runs every kernel of a plan; bytes and FLOPs are those of the closed form.

    Energy follows the time: waiting is what the closed form calls so, less what is
    hidden behind kernels.

    Args:
        closed_form: Price of an iteration without overlap.
        kernels: Lists an iteration.
        capacities: HBM and link of a GPU (bytes/s).
        power: Energy of an iteration.
        meter: Adds up what changed.
        check: Is held against every schedule, or None.
    """

    def __init__(
        self,
        *,
        closed_form: StepPricer,
        kernels: IterationKernels,
        capacities: tuple[int, ...],
        power: PowerModel,
        meter: FidelityMeter,
        check: ScheduleCheck | None = None,
    ) -> None:
        self._closed_form = closed_form
        self._kernels = kernels
        self._capacities = capacities
        self._power = power
        self._meter = meter
        self._check = check

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        """Cost of ``plan`` for ``decoding`` rows that attend to ``context_tokens``."""
        closed = self._closed_form.price(plan, decoding, context_tokens)
        schedule = self.schedule(plan, decoding, context_tokens)
        duration_ns = schedule.horizon_ns
        exposed_ns, planned_ns = self._note(schedule, closed.duration_ns)
        wait_ns = min(closed.wait_ns + exposed_ns - planned_ns, duration_ns)
        energy = self._power.split(
            duration_ns=duration_ns,
            wait_ns=wait_ns,
            hbm_bytes=closed.hbm_bytes,
            flops=closed.flops,
        )
        return closed._replace(
            duration_ns=duration_ns,
            wait_ns=wait_ns,
            energy_run_j=energy.run_j,
            energy_wait_j=energy.wait_j,
            energy_hbm_j=energy.hbm_j,
            energy_flop_j=energy.flop_j,
        )

    def schedule(self, plan: StepPlan, decoding: int, context_tokens: int) -> Schedule:
        """When each kernel of a plan runs."""
        kernels = self._kernels.of(plan, decoding, context_tokens)
        if self._check is None:
            return run_streams(kernels, self._capacities)
        told: list[tuple[int, dict[int, Rate]]] = []
        schedule = run_streams(
            kernels,
            self._capacities,
            lambda now_ns, rates: told.append((now_ns, rates)),
        )
        self._check(schedule, self._capacities, told)
        return schedule

    def _note(self, schedule: Schedule, closed_ns: int) -> tuple[int, int]:
        """Add to the meter; returns time without computing, and that in a row."""
        host_ns = communication_ns = computing_ns = alone_ns = 0
        times = zip(schedule.kernels, schedule.starts_ns, schedule.ends_ns, strict=True)
        for (name, stream, duration_ns, _, _), start_ns, end_ns in times:
            if stream == COMMUNICATION:
                communication_ns += end_ns - start_ns
                alone_ns += duration_ns
            elif name == HOST:
                host_ns += duration_ns
            else:
                computing_ns += end_ns - start_ns
        exposed_ns = schedule.horizon_ns - computing_ns
        meter = self._meter
        meter.events += len(schedule.kernels)
        meter.kernel_ns += schedule.horizon_ns
        meter.iteration_ns += closed_ns
        meter.communication_ns += communication_ns
        meter.exposed_ns += exposed_ns - host_ns
        return exposed_ns, host_ns + alone_ns
