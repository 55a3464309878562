"""Dense matrix products: profiled shapes, elsewhere the nearest one's efficiency."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from calibration.kernels.interpolate import isotonic
from calibration.tables import KernelTables
from sim.errors import ConfigError
from sim.kernel_times import Timed


@dataclass(frozen=True, slots=True)
class _Shape:
    rows: tuple[int, ...]
    times_ns: tuple[float, ...]
    work_ratio: float
    outside: bool


class Gemms:
    """Times of [rows, k] x [k, n] products in one weight format.

    Linear in rows between profiled rows, smoothed so that more rows are never cheaper.
    A shape that was not profiled runs at the
    nearest profiled shape's efficiency: its time times the ratio of n * k, to which
    both weight bytes and FLOPs are proportional. It counts as extrapolated when n or
    k lies beyond the profiled range, as do more rows than were profiled.

    Args:
        tables: Profiled tables of the GPU.
        dtype: "bfloat16" or "fp8".
        block: The fp8 weights have a scale per 128 x 128 block.

    Raises:
        ConfigError: If this format was not profiled on the GPU.
    """

    def __init__(
        self, tables: KernelTables, dtype: str, *, block: bool = False
    ) -> None:
        table = tables.select("gemm_block" if block else "gemm", dtype=dtype)
        if not table["latency_ns"].size:
            raise ConfigError(
                f"{tables.gpu}: model.dtype = {dtype}: no GEMM was profiled in this"
                " format on this GPU"
            )
        self._table = table
        self.weight_bytes = 1 if dtype == "fp8" else 2
        """Bytes of a weight."""
        self._shapes: dict[tuple[int, int], _Shape] = {}

    def at(self, rows: int, n: int, k: int) -> Timed:
        """Time of one product."""
        shape = self._shapes.get((n, k))
        if shape is None:
            shape = self._shapes[n, k] = self._shape(n, k)
        last = shape.rows[-1]
        time_ns = _linear(shape.rows, shape.times_ns, min(rows, last))
        ns = round(time_ns * shape.work_ratio * max(rows / last, 1.0))
        return Timed(ns, ns if shape.outside or rows > last else 0)

    def _shape(self, n: int, k: int) -> _Shape:
        ns, ks = self._table["n"], self._table["k"]
        distance = np.abs(np.log(ns / n)) + np.abs(np.log(ks / k))
        best = int(np.argmin(distance))
        near_n, near_k = int(ns[best]), int(ks[best])
        chosen = (ns == near_n) & (ks == near_k)
        order = np.argsort(self._table["m"][chosen])
        return _Shape(
            tuple(self._table["m"][chosen][order].tolist()),
            tuple(isotonic(self._table["latency_ns"][chosen][order]).tolist()),
            # Below the narrowest profiled shape the launch dominates, not the work.
            max(n, int(ns.min())) * max(k, int(ks.min())) / (near_n * near_k),
            bool(n > ns.max() or k > ks.max()),
        )


def _linear(xs: tuple[int, ...], ys: tuple[float, ...], x: int) -> float:
    i = bisect_right(xs, x) - 1
    if i < 0:
        return ys[0]
    if i == len(xs) - 1:
        return ys[-1]
    return ys[i] + (ys[i + 1] - ys[i]) * (x - xs[i]) / (xs[i + 1] - xs[i])
