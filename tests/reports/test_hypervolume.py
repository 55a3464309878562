"""Hypervolume against the volume of a union of boxes, counted on a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.hypervolume import hypervolume, value_at


@given(
    st.sampled_from([2, 3]).flatmap(
        lambda d: st.lists(
            st.tuples(*[st.integers(0, 7)] * d), min_size=0, max_size=8
        ).map(lambda rows: (d, rows))
    )
)
def test_it_is_the_number_of_cells_that_some_point_dominates(
    case: tuple[int, list[tuple[int, ...]]],
) -> None:
    """Unit cells of a box with corner 6: points beyond it add nothing."""
    d, rows = case
    costs = np.array(rows, dtype=np.float64).reshape(len(rows), d)
    cells = np.stack(np.meshgrid(*[np.arange(6)] * d), axis=-1).reshape(-1, d)
    covered = (costs[np.newaxis] <= cells[:, np.newaxis]).all(axis=2).any(axis=1)
    assert hypervolume(costs, np.full(d, 6.0)) == covered.sum()


def test_unknown_points_do_not_count() -> None:
    """And other shapes are refused."""
    costs = np.array([[1.0, math.nan], [2.0, 3.0]])
    assert hypervolume(costs, np.array([4.0, 4.0])) == 2.0
    with pytest.raises(ValueError, match="expected"):
        hypervolume(np.zeros((1, 4)), np.ones(4))


def test_value_at_a_bound_is_a_step() -> None:
    """Not an interpolation."""
    front = np.array([[1.0, 9.0], [3.0, 4.0]])
    assert value_at(front, 2.9) == 9.0
    assert value_at(front, 3.0) == 4.0
    assert math.isnan(value_at(front, 0.9))
