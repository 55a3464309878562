"""Kernels on streams: a stream runs its kernels in order, each after what it needs.

A CUDA stream's semantics: one kernel at a time, in the order they were issued; events
between streams are dependencies. Kernels of different streams run at once and share
HBM and links; kernel times alone are the profiled ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sim.errors import SimulationError
from sim.machine.fluid import Fluid, Watch
from sim.machine.max_min import Flow

COMPUTE: Final = 0
COMMUNICATION: Final = 1
STREAMS: Final = ("compute", "communication")
HBM: Final = 0
LINK: Final = 1
RESOURCES: Final = ("HBM", "link")


class Kernel(NamedTuple):
    """A kernel, collective or copy, alone on the machine.

    Attributes:
        name: Of the part of an iteration it belongs to.
        stream: Which stream runs it.
        duration_ns: How long it takes alone, >= 1.
        flow: What it moves at which rate; its size over its cap is ``duration_ns``.
        after: How many places before this one in the list the kernels stand that it
            waits for, besides those of its own stream.
    """

    name: str
    stream: int
    duration_ns: int
    flow: Flow
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """When kernels ran.

    Attributes:
        kernels: What ran, in the order it was issued.
        starts_ns: Start of each, from the start of the first.
        ends_ns: End of each.
        horizon_ns: End of the last.
    """

    kernels: Sequence[Kernel]
    starts_ns: Sequence[int]
    ends_ns: Sequence[int]
    horizon_ns: int

    def busy_ns(self, stream: int) -> int:
        """Time in which a stream runs something."""
        times = zip(self.kernels, self.starts_ns, self.ends_ns, strict=True)
        return sum(end - start for k, start, end in times if k.stream == stream)


def kernel(
    name: str,
    stream: int,
    duration_ns: int,
    moved_bytes: float,
    uses: tuple[tuple[int, int], ...],
    capacities: Sequence[int],
) -> Kernel:
    """A kernel that moves bytes over resources evenly for as long as it runs.

    Args:
        name: As of :class:`Kernel`.
        stream: As of :class:`Kernel`.
        duration_ns: Alone, >= 1.
        moved_bytes: At weight 1.
        uses: As of :class:`~sim.machine.max_min.Flow`.
        capacities: Of the resources, bytes/s. A kernel profiled at more (from the L2
            cache, say) counts as one that fills them: the measured time stands.
    """
    rate = int(moved_bytes * 10**9 // duration_ns)
    rate = min([rate, *(capacities[r] // weight for r, weight in uses)])
    if rate < 1:
        return Kernel(name, stream, duration_ns, Flow(duration_ns, (), 1))
    return Kernel(name, stream, duration_ns, Flow(rate * duration_ns, uses, rate))


def run_streams(
    kernels: Sequence[Kernel],
    capacities: Sequence[int],
    watch: Watch | None = None,
    num_streams: int = len(STREAMS),
) -> Schedule:
    """Run kernels as their streams would.

    Args:
        kernels: In the order they are issued.
        capacities: Of the resources, bytes/s.
        watch: As of :class:`~sim.machine.fluid.Fluid`; its keys are places in
            ``kernels``.
        num_streams: Streams there are.

    Raises:
        SimulationError: If kernels wait for each other in a circle.
    """
    streams = [each.stream for each in kernels]
    waiting = _queues(streams, num_streams)
    starts, ends = [0] * len(kernels), [-1] * len(kernels)
    held_by: dict[int, list[int]] = {}  # streams that wait for the kernel at a place
    fluid = Fluid(capacities, watch)
    now_ns = 0
    free = list(range(num_streams))
    while True:
        for stream in free:
            queue = waiting[stream]
            if not queue:
                continue
            place = queue[-1]
            _, _, _, flow, after = kernels[place]
            for back in after:
                if ends[place - back] < 0:
                    held_by.setdefault(place - back, []).append(stream)
                    break
            else:
                queue.pop()
                starts[place] = now_ns
                fluid.start(place, flow)
        end_ns = fluid.next_end_ns()
        if end_ns is None:
            break
        now_ns = end_ns
        free = []
        for place in fluid.advance(now_ns):
            ends[place] = now_ns
            free.append(streams[place])
            if place in held_by:
                free += held_by.pop(place)
    if any(waiting):
        raise SimulationError("kernels wait for each other in a circle")
    return Schedule(kernels, starts, ends, now_ns)


def _queues(streams: Sequence[int], num_streams: int) -> list[list[int]]:
    """Places of each stream's kernels, the first at the end."""
    queues: list[list[int]] = [[] for _ in range(num_streams)]
    for place in range(len(streams) - 1, -1, -1):
        queues[streams[place]].append(place)
    return queues
