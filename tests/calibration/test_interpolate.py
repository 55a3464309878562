"""Interpolation in logs: exact on power laws, flat below, flagged beyond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.kernels.interpolate import LogLogCurve, LogLogGrid, isotonic
from tests.cases import cases

QUICK = cases(12)


@QUICK
@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=12))
def test_isotonic_is_the_min_max_formula(values: list[float]) -> None:
    """y_i = max over a <= i of min over b >= i of mean(x_a .. x_b)."""
    n = len(values)
    expected = [
        max(
            min(float(np.mean(values[a : b + 1])) for b in range(i, n))
            for a in range(i + 1)
        )
        for i in range(n)
    ]
    assert isotonic(np.array(values)).tolist() == pytest.approx(expected)


CURVE = LogLogCurve(
    np.array([10.0, 100.0, 1000.0]), 3e4 * np.array([10.0, 100.0, 1000.0]) ** 0.5
)


@pytest.mark.parametrize("size", [10, 17, 100, 345.6, 1000])
def test_curve_is_exact_on_a_power_law(size: float) -> None:
    """t = 30000 sqrt(x), to the nanosecond."""
    assert CURVE.at(size) == (round(3e4 * size**0.5), 0)


def test_curve_is_flat_below_and_proportional_beyond() -> None:
    """Beyond the last point utilisation is held; that is flagged, below is not."""
    assert CURVE.at(1) == CURVE.at(0) == CURVE.at(10)
    edge = CURVE.at(1000).ns
    beyond = CURVE.at(2500)
    assert beyond.ns == pytest.approx(2.5 * edge, abs=2)
    assert beyond.extrapolated_ns == beyond.ns
    just_beyond = CURVE.at(1000.001)
    assert just_beyond.ns == pytest.approx(edge, rel=1e-5)
    assert just_beyond.extrapolated_ns == just_beyond.ns


def test_curve_smooths_what_falls() -> None:
    """One noisy run in the middle is pooled with its neighbour: mean of 300 and 200."""
    noisy = LogLogCurve(np.array([1.0, 2.0, 4.0]), np.array([300.0, 200.0, 400.0]))
    assert [noisy.at(x).ns for x in (1, 2, 4)] == [250, 250, 400]


ROWS, COLUMNS = np.array([1.0, 4.0, 16.0]), np.array([10.0, 100.0, 1000.0, 10000.0])


def grid() -> LogLogGrid:
    """t = 5000 r^0.3 c^1.0; 16 rows were not profiled at the last column."""
    times = 5e3 * ROWS[:, None] ** 0.3 * COLUMNS[None, :]
    times[2, 3] = np.nan
    return LogLogGrid(ROWS, COLUMNS, times)


@pytest.mark.parametrize("row", [1, 2.5, 4, 7, 16])
@pytest.mark.parametrize("column", [10, 33, 100, 1000])
def test_grid_is_exact_on_a_power_law(row: float, column: float) -> None:
    """Between grid points in both directions."""
    timed = grid().at(row, column)
    assert timed.ns == pytest.approx(5e3 * row**0.3 * column, abs=1)
    assert timed.extrapolated_ns == 0


@pytest.mark.parametrize(
    ("row", "column", "outside"),
    [
        (4, 10000, False),
        (4, 10001, True),
        (16, 1000, False),
        (16, 1001, True),
        (8, 1001, True),  # between rows, one of which was not profiled there
        (4, 1001, False),
        (16.5, 500, True),
        (1, 30000, True),
    ],
)
def test_grid_flags_what_was_not_profiled(
    row: float, column: float, outside: bool
) -> None:
    """Beyond a row's last column, or beyond the last row."""
    timed = grid().at(row, column)
    assert (timed.extrapolated_ns == timed.ns) is outside
    assert timed.extrapolated_ns in (0, timed.ns)


def test_grid_grows_in_proportion_beyond_its_edges() -> None:
    """Time per row, and per column, is held at the edge; nothing jumps there."""
    at = grid().at
    assert at(16, 10000).ns == pytest.approx(10 * at(16, 1000).ns, rel=1e-6)
    assert at(1, 30000).ns == pytest.approx(3 * at(1, 10000).ns, rel=1e-6)
    assert at(32, 500).ns == pytest.approx(2 * at(16, 500).ns, rel=1e-6)
    assert at(16.0001, 500).ns == pytest.approx(at(16, 500).ns, rel=1e-4)
    assert at(4, 10000.1).ns == pytest.approx(at(4, 10000).ns, rel=1e-4)


def test_grid_is_flat_below() -> None:
    """Smaller than the smallest profiled batch or length."""
    assert grid().at(1, 3) == grid().at(1, 10) == grid().at(0.5, 10)


def test_grid_that_does_not_grow_is_flat_beyond_its_columns() -> None:
    """A sliding window: neither the missing corner nor the right edge is extrapolated.

    Beyond the last row it still is, in proportion.
    """
    times = np.array([[100.0, 200.0, 200.0], [300.0, 400.0, np.nan]])
    flat = LogLogGrid(
        np.array([1.0, 4.0]), np.array([10.0, 100.0, 1000.0]), times, grows=False
    )
    for column in (100, 1000, 50_000):
        assert flat.at(1, column) == (200, 0)
        assert flat.at(4, column) == (400, 0)
        assert flat.at(8, column) == (800, 800)
