"""A GPU with a simulated clock: kernels take known times, with seeded noise.

Events also enclose `launch_ns`, which a trace of the kernels (`traces`) does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calibration.profiler.columns import Kernel
from calibration.profiler.device import Clocks, DeviceLostError, KernelFailedError
from calibration.profiler.timing import TimingRules
from workloads.streams import stream

FLUSH_NS = 60_000
POWER_MJ_PER_NS = 500e-6  # 500 W
COUNTER_STEP_NS = 100_000_000  # NVML's counter advances in steps of about 100 ms
QUICK = TimingRules(
    relative_ci=0.02,
    max_repeats=400,
    warmup_ns=100_000,
    min_duration_ns=200_000,
    energy_window_ns=0,
)


class Killed(BaseException):
    """The process ends here."""


def true_ns(kernel: Kernel) -> int:
    """What a kernel takes: 10 us and its integer keys' sum, so kernels differ."""
    return 10_000 + sum(v for v in kernel.values if isinstance(v, int))


@dataclass
class FakeReplay:
    gpu: FakeGpu
    kernel: Kernel
    source: str = "fake"
    host_paced: bool = False

    def run(self) -> None:
        self.gpu.launch(self)


@dataclass
class FakeGpu:
    """`log` has one word per call that matters, in order."""

    sigma: float = 0.01
    kill_at: int | None = None
    lost_at: int | None = None
    out_of_memory: Sequence[Kernel] = ()
    slowdowns: tuple[str, ...] = ()
    mhz: Sequence[int] = (1980,)
    eager: bool = False
    outlier_every: int = 0
    has_counter: bool = True
    launch_ns: int = 0
    traces: bool = False
    trace_factor: float = 1.0
    rank: int = 0
    num_ranks: int = 1
    memory_bytes: int = 80 * 10**9
    now_ns: int = 0
    captured: list[Kernel] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    windows_ns: list[int] = field(default_factory=list)
    _noise: Any = None
    _launches: int = 0
    _reads: int = 0
    _window_start: int | None = None

    def describe(self) -> Mapping[str, str]:
        return {"gpu": "fake"}

    def capture(self, kernel: Kernel) -> FakeReplay:
        if len(self.captured) == self.kill_at:
            raise Killed
        self.captured.append(kernel)
        if kernel in self.out_of_memory:
            raise KernelFailedError("OutOfMemoryError: 80 GB are not enough")
        self._noise = stream(7, kernel.name)
        return FakeReplay(self, kernel, host_paced=self.eager)

    def launch(self, replay: FakeReplay) -> None:
        self.log.append("run")
        self._launches += 1
        factor = 1 + self.sigma * self._noise.standard_normal()
        if self.outlier_every and self._launches % self.outlier_every == 0:
            factor = 10.0
        self.now_ns += round(true_ns(replay.kernel) * factor) + self.launch_ns

    def release(self) -> None:
        if self.lost_at == len(self.captured) - 1:
            raise DeviceLostError("the GPU answers no more")

    def flush_l2(self) -> None:
        self.log.append("flush")
        self.now_ns += FLUSH_NS

    def record(self) -> int:
        self.log.append("event")
        return self.now_ns

    def elapsed_ns(self, spans: Sequence[tuple[Any, Any]]) -> list[int]:
        self.log.append("wait")
        return [stop - start for start, stop in spans]

    def kernel_ns(self, replay: FakeReplay, runs: int) -> list[int] | None:
        if not self.traces:
            return None
        self.log.append("trace")
        spans = []
        for _ in range(runs):
            self.flush_l2()
            before_ns = self.now_ns
            replay.run()
            spans.append(self.now_ns - before_ns - self.launch_ns)
        return [round(self.trace_factor * ns) for ns in spans]

    def synchronize(self) -> None:
        self.log.append("sync")

    def synchronize_ranks(self) -> None:
        self.log.append("ranks")

    def energy_mj(self) -> int | None:
        if not self.has_counter:
            return None
        if self._window_start is None:
            self._window_start = self.now_ns
        else:
            self.windows_ns.append(self.now_ns - self._window_start)
            self._window_start = None
        seen_ns = self.now_ns // COUNTER_STEP_NS * COUNTER_STEP_NS
        return round(seen_ns * POWER_MJ_PER_NS)

    def clocks(self) -> Clocks:
        mhz = self.mhz[min(self._reads, len(self.mhz) - 1)]
        self._reads += 1
        return Clocks(mhz, self.slowdowns)


def median_error(kernel: Kernel, latency_ns: int) -> float:
    """Relative distance of a measured median from the truth."""
    return float(np.abs(latency_ns / true_ns(kernel) - 1))
