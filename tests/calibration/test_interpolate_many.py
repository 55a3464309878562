"""Interpolation of arrays: every element is what a scalar query gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.kernels.interpolate import LogLogCurve, LogLogGrid
from tests.cases import cases

QUICK = cases(15)
SIZES = np.array([1.0, 2.0, 16.0, 17.0, 4096.0])
TIMES = np.array([900.0, 1100.0, 5000.0, 4800.0, 3e6])
INSIDE_AND_OUTSIDE = st.lists(
    st.one_of(st.sampled_from(SIZES.tolist()), st.floats(0, 2e4)), max_size=40
)


@QUICK
@given(INSIDE_AND_OUTSIDE)
def test_curve_gives_the_scalar_times(sizes: list[float]) -> None:
    curve = LogLogCurve(SIZES, TIMES)
    found = curve.many(np.array(sizes))
    assert found.dtype == np.int64
    assert found.tolist() == [curve.at(size).ns for size in sizes]


@QUICK
@given(INSIDE_AND_OUTSIDE, st.floats(0.1, 1e4), st.booleans())
def test_grid_gives_the_scalar_times(
    columns: list[float], row: float, grows: bool
) -> None:
    """With a truncated corner, growing beyond it or not."""
    times = TIMES[None, :] * np.array([[1.0], [3.0], [20.0]])
    times[2, 3:] = np.nan
    grid = LogLogGrid(np.array([1.0, 8.0, 64.0]), SIZES, times, grows=grows)
    for rows in (np.full(len(columns), row), np.array(columns)[::-1]):
        found = grid.many(rows, np.array(columns))
        expected = [
            grid.at(float(r), float(c)).ns for r, c in zip(rows, columns, strict=True)
        ]
        assert found.dtype == np.int64
        assert found.tolist() == expected


@pytest.mark.parametrize("size", [1.0, 5.0, 64.0])
def test_a_curve_of_one_point(size: float) -> None:
    one = LogLogCurve(np.array([5.0]), np.array([1000.0]))
    assert one.many(np.array([size])).tolist() == [one.at(size).ns]


def test_times_half_way_between_integers_round_alike() -> None:
    """t = size / 2: every odd size lies on the edge between two integers."""
    sizes = np.array([2.0, 2.0**20])
    curve = LogLogCurve(sizes, sizes / 2)
    odd = np.arange(3, 20001, 2, dtype=np.float64)
    assert curve.many(odd).tolist() == [curve.at(size).ns for size in odd.tolist()]
