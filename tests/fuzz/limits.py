"""What one hostile input may cost, enforced while it is read."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

CPU_S = 1.0
HANG_S = 60.0
MEMORY_BYTES = 200_000_000


class TooSlowError(Exception):
    """An input took over ``CPU_S`` of processor time, or waited for ``HANG_S``."""


@contextmanager
def limited(cpu_s: float = CPU_S, memory_bytes: int = MEMORY_BYTES) -> Iterator[None]:
    """Run a block within a processor time and an address space.

    Time is the process's own, so that a busy machine fails no test; a block that
    sleeps is interrupted too, later. Beyond the space Python raises MemoryError.
    """
    ends = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}
    before = {number: signal.signal(number, _interrupt) for number in ends.values()}
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_used_bytes() + memory_bytes, hard))
    try:
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        yield
    finally:
        for timer in ends:
            signal.setitimer(timer, 0.0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise TooSlowError(signal.Signals(number).name)


def _used_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
