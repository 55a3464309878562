"""The timing harness on a GPU whose true times are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from calibration.profiler.columns import Kernel
from calibration.profiler.schema import kernel
from calibration.profiler.timing import (
    MIN_ENERGY_WINDOW_NS,
    Timing,
    TimingRules,
    measure,
    median_half_width,
)
from tests.calibration.fake_gpu import (
    POWER_MJ_PER_NS,
    QUICK,
    FakeGpu,
    median_error,
    true_ns,
)
from workloads.streams import stream


def gemm(m: int) -> Kernel:
    return kernel("gemm", dtype="bfloat16", n=4096, k=2048, m=m)


def timed(gpu: FakeGpu, rules: TimingRules = QUICK, m: int = 512) -> Timing:
    return measure(gpu, gpu.capture(gemm(m)), rules)


def test_the_median_interval_is_that_of_order_statistics() -> None:
    """Samples 1..20: the 5th to the 16th, so half of 11 over the median, 10.5.

    10 - 0.98 sqrt(20) = 5.6, rounded down; 11 + 0.98 sqrt(20) = 15.4, rounded up.
    """
    assert median_half_width(list(range(20, 0, -1))) == pytest.approx(5.5 / 10.5)


def test_the_median_interval_covers_the_median() -> None:
    """95 % of intervals of lognormal noise hold the true median, at n = 50.

    Order statistics are conservative; 2,000 repetitions have a standard error of
    0.5 %.
    """
    noise = stream(1, "coverage").lognormal(0.0, 0.5, (2000, 50))
    ordered = np.sort(np.round(noise * 1e6).astype(np.int64), axis=1)
    reach = 1.959964 * np.sqrt(50) / 2
    low, high = int(25 - reach), int(np.ceil(26 + reach))
    held = (ordered[:, low - 1] <= 1e6) & (ordered[:, high - 1] >= 1e6)
    assert 0.94 <= held.mean() <= 0.99
    widths = (ordered[:, high - 1] - ordered[:, low - 1]) / 2
    middles = np.median(ordered, axis=1)
    ours = [median_half_width(row.tolist()) for row in ordered[:50]]
    assert ours == pytest.approx((widths / middles)[:50])


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.05])
def test_repetitions_go_on_until_the_target_is_met(sigma: float) -> None:
    """Noisier kernels run more often; medians are within the target for 9 of 10."""
    errors, repeats = [], []
    for m in range(1, 41):
        timing = timed(FakeGpu(sigma=sigma), replace(QUICK, max_repeats=2000), m)
        assert timing.half_width <= QUICK.relative_ci
        assert "ci-not-met" not in timing.flags
        errors.append(median_error(gemm(m), timing.latency_ns))
        repeats.append(timing.repeats)
    assert np.mean(np.array(errors) <= QUICK.relative_ci) >= 0.9
    # n = (1.96 * 1.2533 * sigma / target)^2 for normal noise, in the mean
    needed = max((1.96 * 1.2533 * sigma / QUICK.relative_ci) ** 2, QUICK.min_repeats)
    assert 0.5 * needed <= np.mean(repeats) <= 2.5 * needed


def test_noise_beyond_the_cap_is_flagged() -> None:
    """30 % noise cannot be averaged to 2 % in 400 runs: capped, flagged."""
    timing = timed(FakeGpu(sigma=0.3))
    assert timing.repeats == QUICK.max_repeats
    assert timing.flags == ("ci-not-met",)


def test_a_quiet_kernel_still_runs_for_the_least_duration() -> None:
    """Without noise only the duration asks for more runs."""
    rules = replace(QUICK, min_duration_ns=20_000_000, max_repeats=2000)
    gpu = FakeGpu(sigma=0.0)
    timing = timed(gpu, rules)
    per_run_ns = 60_000 + true_ns(gemm(512))
    assert timing.repeats * per_run_ns >= 20_000_000
    assert timing.repeats < 2 * 20_000_000 / per_run_ns
    assert timing.latency_ns == true_ns(gemm(512))
    assert timing.mad_ns == 0


def test_every_timed_run_starts_with_a_flushed_l2() -> None:
    """Each pair of events encloses one run and nothing else, after one flush."""
    gpu = FakeGpu()
    timing = timed(gpu)
    flushes = [i for i, word in enumerate(gpu.log) if word == "flush"]
    assert len(flushes) == timing.repeats
    for at in flushes:
        assert gpu.log[at + 1 : at + 4] == ["event", "run", "event"]
    for before, after in pairwise(flushes):
        assert gpu.log[before:after].count("run") == 1


def test_an_eager_kernel_is_launched_into_an_empty_queue() -> None:
    """Its time includes the host's launch, which a full queue would hide."""
    gpu = FakeGpu(eager=True)
    timed(gpu)
    at = gpu.log.index("flush")
    assert gpu.log[at : at + 4] == ["flush", "sync", "event", "run"]


def test_the_warm_up_is_not_timed() -> None:
    """At least the asked time of runs before the first flush."""
    gpu = FakeGpu()
    timed(gpu, replace(QUICK, warmup_ns=3_000_000))
    runs = gpu.log[: gpu.log.index("flush")].count("run")
    assert runs * true_ns(gemm(512)) >= 3_000_000 * 0.9


@pytest.mark.parametrize("m", [1_000_000, 10_000_000, 2_000_000_000])
def test_energy_is_read_over_five_seconds_or_more(m: int) -> None:
    """500 W times the kernel's time, to the counter's 2 %; 1 ms to 2 s kernels."""
    gpu = FakeGpu()
    rules = replace(QUICK, energy_window_ns=MIN_ENERGY_WINDOW_NS, max_repeats=20)
    timing = timed(gpu, rules, m)
    (window_ns,) = gpu.windows_ns
    assert MIN_ENERGY_WINDOW_NS <= window_ns <= 1.5 * MIN_ENERGY_WINDOW_NS
    assert timing.energy_mj == pytest.approx(
        true_ns(gemm(m)) * POWER_MJ_PER_NS, rel=0.03
    )


def test_energy_windows_below_five_seconds_are_refused() -> None:
    """Power readings lag by a second; a short window would measure the past."""
    with pytest.raises(ValueError, match="energy window"):
        TimingRules(energy_window_ns=MIN_ENERGY_WINDOW_NS - 1)


def test_without_a_counter_there_is_no_energy() -> None:
    """None, not a guess."""
    rules = replace(QUICK, energy_window_ns=MIN_ENERGY_WINDOW_NS)
    assert timed(FakeGpu(has_counter=False), rules, 10_000_000).energy_mj is None


def test_slow_clocks_are_flagged() -> None:
    """By the driver's reason, and by a fall of more than 5 %; 4 % is none."""
    slow = FakeGpu(slowdowns=("hw-thermal",), sigma=0.1, mhz=(1980, 1300))
    assert {"clock-drop", "slowdown:hw-thermal"} <= set(timed(slow).flags)
    assert timed(FakeGpu(sigma=0.1, mhz=(1980, 1910))).flags == ()


def test_outliers_are_flagged_and_do_not_move_the_median() -> None:
    """One run in ten takes ten times as long."""
    timing = timed(FakeGpu(outlier_every=10))
    assert "outliers" in timing.flags
    assert median_error(gemm(512), timing.latency_ns) < QUICK.relative_ci
    assert "outliers" not in timed(FakeGpu()).flags


def test_where_kernels_are_traced_their_own_time_counts() -> None:
    """Events add 3 us of launching; as many runs are traced as were timed."""
    gpu = FakeGpu(launch_ns=3_000, traces=True)
    timing = timed(gpu)
    assert timing.timer == "cupti"
    assert median_error(gemm(512), timing.latency_ns) < QUICK.relative_ci
    assert timing.event_ns - timing.latency_ns == pytest.approx(3_000, rel=0.15)
    traced = gpu.log[gpu.log.index("trace") :]
    assert traced.count("run") == timing.repeats
    assert timing.flags == ()


def test_without_a_trace_events_count() -> None:
    """Launching included, and said."""
    timing = timed(FakeGpu(launch_ns=3_000, sigma=0.0))
    assert timing.timer == "cuda-event"
    assert timing.latency_ns == timing.event_ns == true_ns(gemm(512)) + 3_000


def test_an_eager_kernel_is_never_traced() -> None:
    """The host's launch is part of its time."""
    gpu = FakeGpu(eager=True, traces=True, launch_ns=3_000, sigma=0.0)
    timing = timed(gpu)
    assert "trace" not in gpu.log
    assert (timing.timer, timing.latency_ns) == ("cuda-event", timing.event_ns)


def test_a_trace_longer_than_the_events_is_not_believed() -> None:
    """Kernels cannot outlast what encloses them: events count, and a flag says why."""
    timing = timed(FakeGpu(traces=True, trace_factor=1.2))
    assert timing.flags == ("timers-disagree",)
    assert (timing.timer, timing.latency_ns) == ("cuda-event", timing.event_ns)
    assert timed(FakeGpu(traces=True, trace_factor=1.03)).timer == "cupti"
