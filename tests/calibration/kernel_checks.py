"""Helpers for tests of kernel times: smoothing, monotony, the shapes of one model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from calibration.kernels.attention import AttentionShape
from calibration.kernels.moe_roofline import MoeSlice
from sim.kernel_times import Timed

# Qwen3-30B-A3B at TP2: published totals are those of its 48 layers on H100, computed
# independently from the same public tables.
LAYERS = 48
HEADS = AttentionShape(
    num_heads=16, num_kv_heads=2, head_dim=128, window=0, kv_dtype="bfloat16"
)
EXPERTS = MoeSlice(2048, 768, 8, 128, 2, 1)
PROJECTIONS = ((2560, 2048), (2048, 2048), (128, 2048))  # QKV, output, router
MIB = 2**20


def smoothed(times: npt.NDArray[np.int64]) -> list[float]:
    """Isotonic regression by its min-max formula."""
    sums, n = [0, *np.cumsum(times).tolist()], len(times)
    return [
        max(
            min((sums[b] - sums[a]) / (b - a) for b in range(i + 1, n + 1))
            for a in range(i + 1)
        )
        for i in range(n)
    ]


def never_falls(time_at: Callable[[int], Timed], sizes: Iterable[int]) -> bool:
    """Whether times at increasing sizes are positive and in order."""
    times = [time_at(size).ns for size in sizes]
    return min(times) > 0 and times == sorted(times)


def geometric(first: int, last: int) -> list[int]:
    """About 150 sizes, evenly spaced in logs, ends included."""
    return sorted({round(x) for x in np.geomspace(first, last, 150)})
