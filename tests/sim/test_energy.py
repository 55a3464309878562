"""Energy of iterations worked out by hand, and its laws."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.energy import PowerModel
from tests.sim.pricing import QUICK

# Two boards: 300 W while kernels run, 200 W waiting, 100 W idle, cap 700 W.
BOARDS = PowerModel(
    num_gpus=2,
    run_w=300.0,
    gap_w=200.0,
    idle_w=100.0,
    cap_w=700.0,
    hbm_pj_per_byte=50.0,
    pj_per_flop=1.0,
)
MS = 1_000_000


def test_iteration_by_hand() -> None:
    """10 ms, 4 of them waiting, 20 GB and 1 TFLOP, both boards together.

    2 x 300 W x 6 ms = 3.6 J; 2 x 200 W x 4 ms = 1.6 J; 50 pJ x 20e9 = 1 J;
    1 pJ x 1e12 = 1 J; 7.2 J in all, under the cap of 2 x 700 W x 10 ms = 14 J.
    """
    split = BOARDS.split(
        duration_ns=10 * MS, wait_ns=4 * MS, hbm_bytes=20 * 10**9, flops=10**12
    )
    parts = (split.run_j, split.wait_j, split.hbm_j, split.flop_j)
    assert parts == pytest.approx((3.6, 1.6, 1.0, 1.0))


def test_cap_shrinks_all_parts_alike() -> None:
    """With 200 GB and 8 TFLOP the parts add up to 23.2 J of at most 14 J."""
    split = BOARDS.split(
        duration_ns=10 * MS, wait_ns=4 * MS, hbm_bytes=200 * 10**9, flops=8 * 10**12
    )
    keep = 14.0 / 23.2
    parts = (split.run_j, split.wait_j, split.hbm_j, split.flop_j)
    assert parts == pytest.approx((3.6 * keep, 1.6 * keep, 10 * keep, 8 * keep))
    assert math.fsum(parts) == pytest.approx(14.0)


def test_idle_by_hand() -> None:
    """2 x 100 W for 3 s."""
    assert BOARDS.idle_j(3_000 * MS) == pytest.approx(600.0)


def test_nothing_costs_nothing() -> None:
    """An iteration of no length, bytes or FLOPs has no energy (and no 0 / 0)."""
    split = BOARDS.split(duration_ns=0, wait_ns=0, hbm_bytes=0, flops=0)
    assert (split.run_j, split.wait_j, split.hbm_j, split.flop_j) == (0, 0, 0, 0)


@QUICK
@given(
    duration=st.integers(1, 10**9),
    waiting=st.floats(0, 1),
    hbm_bytes=st.integers(0, 10**12),
    flops=st.integers(0, 10**14),
)
def test_power_lies_between_waiting_and_the_cap(
    duration: int, waiting: float, hbm_bytes: int, flops: int
) -> None:
    """Parts are not negative; together at most the cap, at least the waiting power."""
    wait_ns = int(duration * waiting)
    split = BOARDS.split(
        duration_ns=duration, wait_ns=wait_ns, hbm_bytes=hbm_bytes, flops=flops
    )
    parts = (split.run_j, split.wait_j, split.hbm_j, split.flop_j)
    assert min(parts) >= 0
    power_w = math.fsum(parts) / (duration * 1e-9)
    assert 400 * (1 - 1e-12) <= power_w <= 1400 * (1 + 1e-12)


@QUICK
@given(
    duration=st.integers(2, 10**9), hbm_bytes=st.integers(0, 10**9), cut=st.floats(0, 1)
)
def test_energy_is_additive_below_the_cap(
    duration: int, hbm_bytes: int, cut: float
) -> None:
    """An iteration cut in two costs what its halves cost (no wait, no FLOPs)."""
    first = min(max(int(duration * cut), 1), duration - 1)
    bytes_first = int(hbm_bytes * cut)
    uncapped = PowerModel(
        num_gpus=2,
        run_w=300.0,
        gap_w=200.0,
        idle_w=100.0,
        cap_w=1e12,
        hbm_pj_per_byte=50.0,
        pj_per_flop=1.0,
    )

    def total(ns: int, moved: int) -> float:
        split = uncapped.split(duration_ns=ns, wait_ns=0, hbm_bytes=moved, flops=0)
        return split.run_j + split.hbm_j

    halves = total(first, bytes_first) + total(
        duration - first, hbm_bytes - bytes_first
    )
    assert halves == pytest.approx(total(duration, hbm_bytes))
