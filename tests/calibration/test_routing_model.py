"""Moving the rounding remainder of synthetic routing, against its slow twin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from calibration.kernels.routing_model import _lifted

COUNTS = st.lists(st.integers(-50, 50), min_size=1, max_size=12)


def one_by_one(counts: list[int], amount: int) -> npt.NDArray[np.float64]:
    """As the public collector does it: one pair at a time to the least loaded."""
    lifted = np.array(counts, dtype=np.float64)
    for _ in range(amount):
        lifted[np.argmin(lifted)] += 1
    return lifted


@given(COUNTS, st.integers(0, 200))
def test_the_remainder_goes_where_one_by_one_puts_it(
    counts: list[int], amount: int
) -> None:
    """Also for taking pairs away, which is the same on negative counts."""
    start = np.array(counts, dtype=np.float64)
    assert _lifted(start, amount).tolist() == one_by_one(counts, amount).tolist()
    assert start.tolist() == counts
