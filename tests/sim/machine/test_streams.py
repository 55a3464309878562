"""Kernels on two streams, against schedules worked out by hand."""

from __future__ import annotations

import pytest

from sim.checks.machine import check_schedule
from sim.errors import InvariantError, SimulationError
from sim.machine.max_min import Flow, Rate
from sim.machine.streams import (
    COMMUNICATION,
    COMPUTE,
    HBM,
    LINK,
    Kernel,
    Schedule,
    kernel,
    run_streams,
)

GB = 10**9
CAPACITIES = (100 * GB, 10 * GB)
"""100 bytes/ns of HBM and 10 of the link."""
Told = list[tuple[int, dict[int, Rate]]]


def compute(ns: int, hbm_bytes: int, *after: int) -> Kernel:
    made = kernel("gemm", COMPUTE, ns, hbm_bytes, ((HBM, 1),), CAPACITIES)
    return made._replace(after=after)


def send(ns: int, link_bytes: int, *after: int) -> Kernel:
    uses = ((LINK, 1), (HBM, 2))
    made = kernel("all_reduce", COMMUNICATION, ns, link_bytes, uses, CAPACITIES)
    return made._replace(after=after)


def checked(kernels: list[Kernel]) -> Schedule:
    told: Told = []
    schedule = run_streams(
        kernels, CAPACITIES, lambda now_ns, rates: told.append((now_ns, rates))
    )
    check_schedule(schedule, CAPACITIES, told)
    return schedule


def test_one_after_the_other_takes_the_sum() -> None:
    kernels = [compute(10, 1000), send(7, 70, 1), compute(5, 500, 1), send(3, 30, 1)]
    schedule = checked(kernels)
    assert (schedule.starts_ns, schedule.horizon_ns) == ([0, 10, 17, 22], 25)
    assert (schedule.busy_ns(COMPUTE), schedule.busy_ns(COMMUNICATION)) == (15, 10)


def test_streams_run_at_once_where_hbm_suffices_for_both() -> None:
    """80 + 2 x 10 bytes/ns: just enough."""
    schedule = checked([compute(10, 800), send(30, 300), compute(10, 800)])
    assert schedule.ends_ns == [10, 30, 20]


def test_kernels_that_share_hbm_slow_each_other() -> None:
    """The GEMM wants 100 bytes/ns, the all-reduce 10 on the link, so 20 of HBM.

    Shares of 100 / 3 let the all-reduce have its 10; the GEMM is left with 80: 12.5 ns,
    so it has ended after 13.
    """
    schedule = checked([compute(10, 1000), send(20, 200)])
    assert schedule.ends_ns == [13, 20]


def test_a_collective_is_slowed_when_hbm_is_the_narrower() -> None:
    """With 12 bytes/ns of HBM the rates are 4 each: the all-reduce takes 15 ns.

    The GEMM has 60 of its 120 left then, at 12 bytes/ns: 5 ns more.
    """
    narrow = (12 * GB, 10 * GB)
    gemm = kernel("gemm", COMPUTE, 10, 120, ((HBM, 1),), narrow)
    uses = ((LINK, 1), (HBM, 2))
    reduce = kernel("all_reduce", COMMUNICATION, 10, 60, uses, narrow)
    assert run_streams([gemm, reduce], narrow).ends_ns == [20, 15]


def test_a_kernel_from_the_cache_counts_as_one_that_fills_hbm() -> None:
    """Profiled at 3 times the bandwidth: its time stands."""
    assert checked([compute(10, 3000)]).horizon_ns == 10


def test_a_wait_over_two_kernels_back() -> None:
    """The third kernel waits for the first all-reduce, not the second."""
    kernels = [compute(5, 0), send(10, 0, 1), send(30, 0), compute(5, 0, 2)]
    assert checked(kernels).starts_ns == [0, 5, 15, 15]


def test_one_end_frees_every_stream_that_waits_for_it() -> None:
    kernels = [compute(10, 0), send(5, 0, 1), send(7, 0, 2)._replace(stream=2)]
    schedule = run_streams(kernels, CAPACITIES, num_streams=3)
    assert (schedule.starts_ns, schedule.ends_ns) == ([0, 10, 10], [10, 15, 17])


def test_a_circle_is_an_error() -> None:
    with pytest.raises(SimulationError, match="circle"):
        run_streams([compute(5, 0, -1), send(5, 0, 1)], CAPACITIES)


def schedule_of(*spans: tuple[int, int], after: int = 0) -> Schedule:
    kernels = [compute(10, 500) for _ in spans]
    if after:
        kernels[-1] = kernels[-1]._replace(after=(after,))
    starts, ends = zip(*spans, strict=True)
    return Schedule(kernels, starts, ends, max(ends))


FULL: Told = [(0, {0: 50 * GB}), (10, {1: 50 * GB})]


@pytest.mark.parametrize(
    ("law", "schedule", "told"),
    [
        ("resource-capacity", ((0, 10), (10, 20)), [(0, {0: 101 * GB})]),
        ("bytes-moved", ((0, 10), (10, 20)), [(0, {0: 40 * GB}), (10, {1: 50 * GB})]),
        ("bytes-moved", ((0, 10), (10, 20)), [(0, {0: 50 * GB}), (9, {1: 50 * GB})]),
        ("stream-order", ((0, 10), (9, 20)), FULL),
        ("stream-order", ((0, 10), (10, 19)), [*FULL[:1], (10, {1: 60 * GB})]),
    ],
)
def test_every_law_is_seen_broken(
    law: str, schedule: tuple[tuple[int, int], ...], told: Told
) -> None:
    with pytest.raises(InvariantError) as caught:
        check_schedule(schedule_of(*schedule), CAPACITIES, told)
    assert caught.value.invariant == law


def test_a_horizon_before_the_last_end_is_seen() -> None:
    late = Schedule([Kernel("x", COMPUTE, 5, Flow(5, (), 1))], [0], [5], 4)
    with pytest.raises(InvariantError, match=r"bytes-moved|horizon"):
        check_schedule(late, CAPACITIES, [(0, {0: 1})])
    longer = Schedule([Kernel("x", COMPUTE, 5, Flow(5, (), 1))], [0], [6], 5)
    with pytest.raises(InvariantError, match="horizon"):
        check_schedule(longer, CAPACITIES, [(0, {0: 1})])
