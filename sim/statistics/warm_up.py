"""Where the start of a run stops to matter."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

_BATCH: Final = 5


def mser5_cut(series: npt.ArrayLike) -> int | None:
    """Observations to drop at the start, by MSER-5.

    The cut that makes the squared standard error of what remains smallest, over means
    of five (White, Simulation 69 (1997) 323-334; White, Cobb and Spratt, WSC 2000).
    Give it the average over replications where there are several.

    Args:
        series: In the order of time, shape (n,).

    Returns:
        How many to drop, a multiple of five; None if the best cut lies in the second
        half, when the run is too short or never settles.
    """
    values = np.asarray(series, dtype=np.float64)
    batches = values.size // _BATCH
    if batches < 2:
        return None
    means = values[: batches * _BATCH].reshape(batches, _BATCH).mean(axis=1)
    # From the end, so that every suffix's sums come from one pass; centred, so that
    # the sum of squares does not cancel.
    tail = (means - means.mean())[::-1]
    counts = np.arange(1, batches + 1)
    errors = np.cumsum(tail**2) / counts**2 - np.cumsum(tail) ** 2 / counts**3
    by_cut = errors[::-1]
    # a suffix of fewer than five batches has too little to tell its own variance
    allowed = by_cut[: max(batches - _BATCH + 1, 1)]
    cut = int(np.argmin(allowed))
    return cut * _BATCH if cut <= batches // 2 else None
