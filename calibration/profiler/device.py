"""What the harness needs of a GPU; `torch_device` is the real one, tests bring another.

With several ranks (one process per GPU, started by torchrun) every rank runs the same
harness. Whatever decides what happens next, durations and failures, is the same on all
of them: the slowest rank's duration, and a failure of any rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from calibration.profiler.columns import Kernel
from sim.errors import SimulationError


class KernelFailedError(Exception):
    """This kernel cannot be measured here (memory, missing library); others can."""


class DeviceLostError(SimulationError):
    """The GPU answers no more, as after an illegal access: the process must end."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """State of the clocks at one moment.

    Attributes:
        sm_mhz: SM clock, None if unknown.
        slowdowns: why the clock is held down, such as "thermal".
    """

    sm_mhz: int | None
    slowdowns: tuple[str, ...] = ()


class Event(Protocol):
    """A point in the device's queue; only its own device understands it."""


class Replay(Protocol):
    """A kernel ready to run again and again.

    Attributes:
        source: what runs, for the column `kernel_source`.
        host_paced: launched eagerly: its time includes the host's work, so the queue
            must be empty when it is launched.
    """

    source: str
    host_paced: bool

    def run(self) -> None:
        """Put one run into the device's queue; does not wait."""


class Device(Protocol):
    """One GPU, or this rank's GPU of a group.

    Attributes:
        memory_bytes: memory of one GPU.
        rank: this process in the group; rank 0 writes the files.
        num_ranks: processes in the group.
    """

    memory_bytes: int
    rank: int
    num_ranks: int

    def describe(self) -> Mapping[str, str]:
        """Device, driver and library versions, for the provenance."""

    def capture(self, kernel: Kernel) -> Replay:
        """Allocate, warm up and capture a kernel.

        Raises:
            KernelFailedError: on all ranks, if any of them cannot.
        """

    def release(self) -> None:
        """Free what was captured.

        Raises:
            DeviceLostError: if the device answers no more.
        """

    def flush_l2(self) -> None:
        """Queue a write of at least twice the L2, so that no input stays in it."""

    def record(self) -> Event:
        """Put an event into the queue."""

    def elapsed_ns(self, spans: Sequence[tuple[Event, Event]]) -> list[int]:
        """Wait, then give the duration of each span on the slowest rank.

        Raises:
            KernelFailedError: on all ranks, if a queued kernel failed on any.
        """

    def kernel_ns(self, replay: Replay, runs: int) -> list[int] | None:
        """Flush the L2 and run, several times; each run's kernels on the slowest rank.

        Without what events enclose besides: the launch.

        Returns:
            One duration a run; None where kernels cannot be traced.

        Raises:
            KernelFailedError: on all ranks, if it failed on any.
        """

    def synchronize(self) -> None:
        """Wait until the queue is empty."""

    def synchronize_ranks(self) -> None:
        """Wait until all ranks are here."""

    def energy_mj(self) -> int | None:
        """Board energy since some past moment; None where there is no such counter."""

    def clocks(self) -> Clocks:
        """The clocks now."""
