"""The timing harness: how often a kernel runs, what is kept, and what is suspicious.

Every timed run starts with a flushed L2, so weights come from memory as they do in an
engine, where the other layers have replaced them. CUDA events say how many runs are
needed; where kernels can be traced as well (CUPTI), as many runs are traced and the
kernels' own time is what counts. A kernel that the host launches each time keeps its
events: the launch is part of it. The energy window runs back to back
without flushes, whose own energy could not be told from the kernel's; it reads the
board's energy counter, because power readings lag by about a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from calibration.profiler.columns import CUPTI, EVENT
from calibration.profiler.device import Clocks, Device, Event, Replay
from sim.units import NS_PER_MS, NS_PER_S

_Z95: Final = 1.959964  # two-sided 95 % quantile of the normal distribution
_MAD_TO_SIGMA: Final = 1.4826  # of the normal distribution
_OUTLIER_SIGMAS: Final = 5.0
_MANY_OUTLIERS: Final = 0.05
_CLOCK_DROP: Final = 0.95
_WARMUP_BATCH: Final = 3
# Kernels cannot take longer than the events around them; 5 % is noise between runs.
_MOST_OF_EVENT: Final = 1.05

# The counter advances in steps of about 100 ms (NVML, H100): 2 % of five seconds.
MIN_ENERGY_WINDOW_NS: Final = 5 * NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingRules:
    """When a kernel is measured well enough.

    Attributes:
        relative_ci: half width of the median's 95 % interval to reach, relative.
        min_repeats: fewest timed runs; 6 are needed for an interval.
        max_repeats: most timed runs; reached, the row is flagged "ci-not-met".
        warmup_ns: running time before the first timed run.
        min_duration_ns: least time from the first timed run to the last.
        energy_window_ns: length of the energy window, at least
            `MIN_ENERGY_WINDOW_NS`; 0 measures no energy.
    """

    relative_ci: float = 0.01
    min_repeats: int = 20
    max_repeats: int = 2000
    warmup_ns: int = 20 * NS_PER_MS
    min_duration_ns: int = 50 * NS_PER_MS
    energy_window_ns: int = MIN_ENERGY_WINDOW_NS

    def __post_init__(self) -> None:
        if 0 < self.energy_window_ns < MIN_ENERGY_WINDOW_NS:
            raise ValueError(f"energy window below {MIN_ENERGY_WINDOW_NS} ns")
        if not 6 <= self.min_repeats <= self.max_repeats:
            raise ValueError("not 6 <= min_repeats <= max_repeats")


@dataclass(frozen=True, slots=True)
class Timing:
    """What one kernel took.

    Attributes:
        latency_ns: median over the timed runs, by `timer`.
        mad_ns: median absolute deviation from it.
        half_width: half of the median's 95 % interval, relative to the median.
        repeats: timed runs.
        energy_mj: board energy of one run; None if not measured.
        flags: what to distrust: "ci-not-met", "outliers", "clock-drop",
            "slowdown:REASON", "timers-disagree".
        timer: "cupti", the kernels alone, or "cuda-event".
        event_ns: median by CUDA events, whichever timer was used.
    """

    latency_ns: int
    mad_ns: int
    half_width: float
    repeats: int
    energy_mj: float | None
    flags: tuple[str, ...]
    timer: str
    event_ns: int


def measure(device: Device, replay: Replay, rules: TimingRules) -> Timing:
    """Time a captured kernel, and its energy if the rules want it.

    Raises:
        KernelFailedError: if it fails while it runs.
    """
    _warm_up(device, replay, rules.warmup_ns)
    by_event, clocks = _samples(device, replay, rules)
    event_ns = max(round(median(by_event)), 1)
    flags = _clock_flags(clocks)
    timer, samples = EVENT, by_event
    traced = None if replay.host_paced else device.kernel_ns(replay, len(by_event))
    if traced is not None:
        if median(traced) > _MOST_OF_EVENT * event_ns:
            flags.append("timers-disagree")
        else:
            timer, samples = CUPTI, traced
    middle = median(samples)
    half_width = median_half_width(samples)
    if half_width > rules.relative_ci:
        flags.append("ci-not-met")
    if _outlier_share(samples) > _MANY_OUTLIERS:
        flags.append("outliers")
    return Timing(
        latency_ns=max(round(middle), 1),
        mad_ns=round(_mad(samples)),
        half_width=half_width,
        repeats=len(samples),
        energy_mj=_energy_mj(device, replay, event_ns, rules.energy_window_ns),
        flags=tuple(sorted(flags)),
        timer=timer,
        event_ns=event_ns,
    )


def median_half_width(samples: Sequence[int]) -> float:
    """Half of the 95 % confidence interval of the median, relative to the median.

    Order statistics at n / 2 -+ 0.98 sqrt(n): no law of the noise is assumed (Le
    Boudec, Performance Evaluation of Computer and Communication Systems, 2010, 2.2).

    Args:
        samples: durations, six or more.
    """
    ordered = sorted(samples)
    count, reach = len(ordered), _Z95 * math.sqrt(len(ordered)) / 2
    low = max(math.floor(count / 2 - reach), 1)
    high = min(math.ceil(count / 2 + 1 + reach), count)
    width = ordered[high - 1] - ordered[low - 1]
    return width / 2 / max(median(ordered), 1)


def _clock_flags(clocks: Sequence[Clocks]) -> list[str]:
    """One flag per reason to slow down, and one if the SM clock fell meanwhile."""
    reasons = {reason for seen in clocks for reason in seen.slowdowns}
    known = [seen.sm_mhz for seen in clocks if seen.sm_mhz is not None]
    flags = [f"slowdown:{reason}" for reason in reasons]
    if known and min(known) < _CLOCK_DROP * max(known):
        flags.append("clock-drop")
    return flags


def _warm_up(device: Device, replay: Replay, least_ns: int) -> None:
    """Run until clocks, caches and lazy initialisation have settled."""
    start = device.record()
    batch = _WARMUP_BATCH
    while True:
        for _ in range(batch):
            replay.run()
        elapsed = _since(device, start)
        if elapsed >= least_ns:
            return
        batch *= 2


def _samples(
    device: Device, replay: Replay, rules: TimingRules
) -> tuple[list[int], list[Clocks]]:
    """Timed runs until the median is known well enough, long enough; and the clocks."""
    first = device.record()
    samples: list[int] = []
    clocks: list[Clocks] = []
    more = rules.min_repeats
    while True:
        spans = [_timed(device, replay) for _ in range(more)]
        clocks.append(device.clocks())  # while the queue is busy: idle clocks differ
        samples += device.elapsed_ns(spans)
        left = rules.max_repeats - len(samples)
        known = median_half_width(samples) <= rules.relative_ci
        if left <= 0 or (known and _since(device, first) >= rules.min_duration_ns):
            return samples, clocks
        more = min(max(len(samples) // 2, rules.min_repeats), left)


def _timed(device: Device, replay: Replay) -> tuple[Event, Event]:
    device.flush_l2()
    if replay.host_paced:
        device.synchronize()
    start = device.record()
    replay.run()
    return start, device.record()


def _since(device: Device, start: Event) -> int:
    """Time from an event to now, on the slowest rank: the same on all ranks."""
    return device.elapsed_ns([(start, device.record())])[0]


def _energy_mj(
    device: Device, replay: Replay, latency_ns: int, window_ns: int
) -> float | None:
    """Mean board energy of one run over a window of back-to-back runs."""
    if not window_ns:
        return None
    device.synchronize()
    before = device.energy_mj()
    start, runs, elapsed = device.record(), 0, 0
    while elapsed < window_ns:
        # at most a tenth of the window at a time: the queue stays short
        batch = max(round((window_ns / 10) / max(latency_ns, 1)), 1)
        for _ in range(batch):
            replay.run()
        runs += batch
        elapsed = _since(device, start)
    after = device.energy_mj()
    if before is None or after is None or after <= before:
        return None
    return float(f"{(after - before) / runs:.6g}")


def _mad(samples: Sequence[int]) -> float:
    middle = median(samples)
    return median(abs(sample - middle) for sample in samples)


def _outlier_share(samples: Sequence[int]) -> float:
    """Share of runs beyond five robust standard deviations (1 ns at least)."""
    middle = median(samples)
    limit = _OUTLIER_SIGMAS * max(_MAD_TO_SIGMA * _mad(samples), 1.0)
    return sum(abs(sample - middle) > limit for sample in samples) / len(samples)
