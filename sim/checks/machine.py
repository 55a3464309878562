"""Laws of the machine, held against the schedule of every iteration's kernels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

from sim.errors import InvariantError
from sim.machine.max_min import Rate, alone
from sim.machine.streams import RESOURCES, STREAMS, Schedule

Told = list[tuple[int, dict[int, Rate]]]

MACHINE_LAWS: Mapping[str, str] = MappingProxyType(
    {
        "resource-capacity": "No resource is ever above its capacity.",
        "bytes-moved": "Every kernel moves its bytes, all of them and once.",
        "stream-order": "One kernel at a time, in order; busy + idle = horizon.",
    }
)
"""Name and law of all that is watched in a schedule."""


def check_schedule(schedule: Schedule, capacities: tuple[int, ...], told: Told) -> None:
    """Hold the laws against one iteration.

    Args:
        schedule: When kernels ran.
        capacities: Of the resources (bytes/s).
        told: (time, rates by kernel) whenever rates may have changed; the integral of
            what is told is worked out here, apart from what the fluid keeps.

    Raises:
        InvariantError: If one is broken.
    """
    _check_rates(schedule, capacities, told)
    _check_streams(schedule)


def _check_rates(schedule: Schedule, capacities: tuple[int, ...], told: Told) -> None:
    moved: dict[int, Rate] = {}
    for (since_ns, rates), (until_ns, _) in pairwise(
        [*told, (schedule.horizon_ns, {})]
    ):
        loads: list[Rate] = [0] * len(capacities)
        for place, rate in rates.items():
            moved[place] = moved.get(place, 0) + rate * (until_ns - since_ns)
            for resource, weight in schedule.kernels[place].flow.uses:
                loads[resource] += weight * rate
        for resource, load in enumerate(loads):
            if load > capacities[resource]:
                raise InvariantError(
                    "resource-capacity",
                    f"{RESOURCES[resource]} carries {load} of {capacities[resource]}"
                    f" bytes/s at {since_ns} ns of the iteration",
                )
    for place, kernel in enumerate(schedule.kernels):
        # The nanosecond in which it ends may not be needed whole.
        over = moved.get(place, 0) - kernel.flow.size
        if not 0 <= over < alone(kernel.flow, capacities):
            raise InvariantError(
                "bytes-moved",
                f"{kernel.name} moved {moved.get(place, 0)} of {kernel.flow.size}"
                " nanobytes",
            )


def _check_streams(schedule: Schedule) -> None:
    free_ns = [0] * len(STREAMS)
    idle_ns = [0] * len(STREAMS)
    for place, kernel in enumerate(schedule.kernels):
        start_ns, end_ns = schedule.starts_ns[place], schedule.ends_ns[place]
        waited = [
            schedule.ends_ns[place - back] for back in kernel.after if back <= place
        ]
        if start_ns < max([free_ns[kernel.stream], *waited]):
            raise InvariantError(
                "stream-order",
                f"{kernel.name} starts at {start_ns} ns, before what it waits for",
            )
        if end_ns - start_ns < kernel.duration_ns:
            raise InvariantError(
                "stream-order",
                f"{kernel.name} took {end_ns - start_ns} ns, less than alone",
            )
        idle_ns[kernel.stream] += start_ns - free_ns[kernel.stream]
        free_ns[kernel.stream] = end_ns
    for stream, name in enumerate(STREAMS):
        rest_ns = schedule.horizon_ns - free_ns[stream]
        total_ns = schedule.busy_ns(stream) + idle_ns[stream] + rest_ns
        if rest_ns < 0 or total_ns != schedule.horizon_ns:
            raise InvariantError(
                "stream-order",
                f"{name}: busy + idle = {total_ns} ns is not the horizon",
            )
