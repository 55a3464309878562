"""Durations of kernels alone, from the GPU's own record of its activities.

CUDA events enclose what the launch of a graph takes besides its kernels. CUPTI records
when each kernel began and ended; `torch.profiler` reads it (through Kineto), so nothing
more needs to be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sim.units import NS_PER_US

Span = tuple[int, int]
"""Begin and end of a kernel, a copy or a fill on the GPU (ns)."""

_FLUSHES: Final = 3


def run_spans(
    activities: Sequence[Span], runs: int, flush_size: int
) -> list[int] | None:
    """Time of each run, from the begin of its first kernel to the end of its last.

    Gaps between the kernels of one run count: they are part of what it takes.

    Args:
        activities: of `runs` times (a flush of the L2, then the run).
        runs: how many there were.
        flush_size: activities of one flush.

    Returns:
        Nanoseconds per run; None if the record is incomplete.
    """
    size, odd = divmod(len(activities), runs)
    if odd or size <= flush_size:
        return None
    ordered = sorted(activities)
    spans = []
    for first in range(flush_size, len(ordered), size):
        own = ordered[first : first + size - flush_size]
        spans.append(max(end for _, end in own) - own[0][0])
    return spans


class KernelTrace:
    """Traces launches on the current GPU.

    Args:
        torch: the module.
        flush: queues one flush of the L2.
    """

    def __init__(self, torch: Any, flush: Callable[[], None]) -> None:
        self._torch = torch
        self._flush = flush
        self._flush_size: int | None = None

    def works(self) -> bool:
        """Whether the driver lets us trace; finds out on the first call."""
        if self._flush_size is None:
            self._flush_size = self._size_of_flush()
        return self._flush_size > 0

    def spans(self, run: Callable[[], None], runs: int) -> list[int] | None:
        """As `run_spans`, of a launch that is traced `runs` times."""
        if not self.works() or self._flush_size is None:
            return None

        def launch() -> None:
            for _ in range(runs):
                self._flush()
                run()

        return run_spans(self._traced(launch), runs, self._flush_size)

    def _size_of_flush(self) -> int:
        """Activities of one flush; 0 where the driver lets nobody trace."""

        def launch() -> None:
            for _ in range(_FLUSHES):
                self._flush()

        self._traced(launch)  # the first trace of a process may miss its begin
        size, odd = divmod(len(self._traced(launch)), _FLUSHES)
        return 0 if odd else size

    def _traced(self, launch: Callable[[], None]) -> list[Span]:
        profiler, on_gpu = self._torch.profiler, self._torch.autograd.DeviceType.CUDA
        activities = [profiler.ProfilerActivity.CUDA]
        with profiler.profile(activities=activities) as trace:
            launch()
            self._torch.cuda.synchronize()
        return [
            (
                round(event.time_range.start * NS_PER_US),
                round(event.time_range.end * NS_PER_US),
            )
            for event in trace.events()
            if event.device_type == on_gpu
        ]


def open_trace(torch: Any, flush: Callable[[], None]) -> KernelTrace | None:
    """A trace of the current GPU; None where torch was built without CUPTI."""
    supported = torch.profiler.supported_activities()
    if torch.profiler.ProfilerActivity.CUDA not in supported:
        return None
    return KernelTrace(torch, flush)
