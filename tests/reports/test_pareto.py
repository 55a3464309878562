"""Dominance against its definition, and SLO capacity against hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.pareto import pareto_front, rate_at_attainment

_VALUES = st.one_of(st.integers(-3, 3).map(float), st.just(math.nan))


def _dominates(
    a: tuple[float, ...], b: tuple[float, ...], minimise: tuple[bool, ...]
) -> bool:
    """The definition: no worse everywhere, better somewhere."""
    if any(math.isnan(value) for value in (*a, *b)):
        return False
    gains = [
        (y - x) if small else (x - y)
        for x, y, small in zip(a, b, minimise, strict=True)
    ]
    return min(gains) >= 0 and max(gains) > 0


@given(
    st.integers(1, 3).flatmap(
        lambda d: st.tuples(
            st.lists(st.tuples(*[_VALUES] * d), min_size=1, max_size=12),
            st.tuples(*[st.booleans()] * d),
        )
    )
)
def test_front_is_what_no_point_dominates(
    case: tuple[list[tuple[float, ...]], tuple[bool, ...]],
) -> None:
    """The mask equals the definition, with ties, duplicates and unknown values."""
    points, minimise = case
    expected = [
        not any(math.isnan(value) for value in point)
        and not any(_dominates(other, point, minimise) for other in points)
        for point in points
    ]
    assert pareto_front(np.array(points), minimise).tolist() == expected


def test_front_of_no_points_is_empty() -> None:
    """An empty cloud has an empty front."""
    assert pareto_front(np.empty((0, 2)), (True, True)).shape == (0,)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 3)])
def test_front_refuses_a_shape_that_does_not_match(shape: tuple[int, ...]) -> None:
    """Objectives and directions must be equally many."""
    with pytest.raises(ValueError, match=r"expected \(n, 2\)"):
        pareto_front(np.zeros(shape), (True, True))


# SLO attainment in % of Qwen3-30B-A3B on arXiv, read off Fig. 3a of arXiv 2510.08055.
_RATES = [1.3, 1.4, 1.5, 1.6, 1.7, 1.8]
_CHUNKED = [100, 97.6, 43.7, 14.4, 11.3, 7.8]
_LAYERED = [100, 100, 100, 100, 98.2, 80.8]


@pytest.mark.parametrize(
    ("attainment", "expected"),
    [
        (_CHUNKED, 1.4 + 0.1 * (97.6 - 90) / (97.6 - 43.7)),  # 1.414
        (_LAYERED, 1.7 + 0.1 * (98.2 - 90) / (98.2 - 80.8)),  # 1.747
    ],
)
def test_rate_at_attainment_of_the_paper(
    attainment: list[float], expected: float
) -> None:
    """The paper's 1.41 and 1.75 req/s come out of its own plotted points."""
    assert rate_at_attainment(_RATES, attainment, 90.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rates", "attainment", "expected"),
    [
        ([1, 2], [1.0, 0.8], 1.5),
        ([2, 1], [0.8, 1.0], 1.5),  # any order
        ([1, 2, 3], [1.0, math.nan, 0.8], 2.0),  # across a gap
        ([1, 2, 3, 4], [1.0, 0.8, 1.0, 0.8], 3.5),  # the last fall counts
        ([1, 2, 3], [1.0, 0.9, 0.0], 2.0),  # exactly at a point
        ([1, 2], [1.0, 0.9], 2.0),  # exactly at the end
        ([1, 2], [0.8, 0.7], math.nan),  # never reached
        ([1, 2], [1.0, 0.95], math.nan),  # never lost: lies beyond
        ([1, 2, 3], [1.0, 0.8, 0.95], math.nan),  # regained: lies beyond
        ([], [], math.nan),
    ],
)
def test_rate_at_attainment_by_hand(
    rates: list[float], attainment: list[float], expected: float
) -> None:
    """Linear between points, NaN when the answer is outside the range."""
    assert rate_at_attainment(rates, attainment) == pytest.approx(expected, nan_ok=True)
