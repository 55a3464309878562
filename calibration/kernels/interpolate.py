"""Interpolation on profiled grids; scalar queries on plain lists, built once."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sim.kernel_times import Timed

Float = npt.NDArray[np.float64]
Integer = npt.NDArray[np.int64]

# NumPy's exp and log may differ from math's in their last bits, here by less than
# this share of a time; see _rounded.
_LAST_BITS = 1e-12


def isotonic(values: Float) -> Float:
    """Least-squares non-decreasing sequence (pool adjacent violators).

    Kernel time cannot fall with size; single noisy runs say it does.
    """
    blocks: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, count = float(value), 1
        while blocks and blocks[-1][0] > mean:
            previous, weight = blocks.pop()
            mean = (previous * weight + mean * count) / (weight + count)
            count += weight
        blocks.append((mean, count))
    return np.array([mean for mean, count in blocks for _ in range(count)])


class LogLogCurve:
    """Log-log linear interpolation of time over size; flat below, linear above.

    Below the smallest profiled size the time is that size's; above the largest it
    grows in proportion (utilisation held at the edge) and counts as extrapolated.

    Args:
        sizes: Profiled sizes, increasing, > 0.
        times_ns: Their times.
    """

    def __init__(self, sizes: Float, times_ns: Float) -> None:
        self._sizes = [float(s) for s in sizes]
        self._log_sizes = np.log(sizes).tolist()
        self._log_times = np.log(isotonic(times_ns)).tolist()

    def at(self, size: float) -> Timed:
        """Time at ``size``."""
        sizes = self._sizes
        if size <= sizes[0]:
            return Timed(round(math.exp(self._log_times[0])))
        if size > sizes[-1]:
            ns = round(math.exp(self._log_times[-1]) * size / sizes[-1])
            return Timed(ns, ns)
        i = max(bisect_right(sizes, size) - 1, 0)
        if i == len(sizes) - 1:
            return Timed(round(math.exp(self._log_times[-1])))
        w = (math.log(size) - self._log_sizes[i]) / (
            self._log_sizes[i + 1] - self._log_sizes[i]
        )
        low, high = self._log_times[i], self._log_times[i + 1]
        return Timed(round(math.exp(low + w * (high - low))))

    def many(self, sizes: Float) -> Integer:
        """Times in ns at an array of sizes, each exactly that of :meth:`at`.

        Args:
            sizes: Any number of sizes, one-dimensional.
        """
        first, last = self._sizes[0], self._sizes[-1]
        inside = np.log(np.clip(sizes, first, last))
        ns = np.exp(np.interp(inside, self._log_sizes, self._log_times))
        ns *= np.maximum(sizes / last, 1.0)
        return _rounded(ns, lambda i: self.at(float(sizes[i])))


class LogLogGrid:
    """Bilinear interpolation in logs over (rows, columns), with a truncated corner.

    Grids of batch by length stop where memory ran out: row r has times up to some
    column. Beyond it time grows in proportion to the column, and counts as
    extrapolated, as it does beyond the last row.

    Args:
        rows: Row coordinates, increasing, > 0.
        columns: Column coordinates, increasing, > 0.
        times_ns: Array [rows, columns], NaN where not profiled; each row starts with
            a profiled time.
        grows: Whether time beyond a row's last profiled column grows with the column;
            if not it stays, which is no extrapolation.
        smooth: Whether times may not fall from column to column.
    """

    def __init__(
        self,
        rows: Float,
        columns: Float,
        times_ns: Float,
        *,
        grows: bool = True,
        smooth: bool = True,
    ) -> None:
        filled, limits = _fill(columns, times_ns, grows=grows, smooth=smooth)
        self._grows = grows
        self._limits = limits if grows else [math.inf] * len(limits)
        self._rows = [float(r) for r in rows]
        self._columns = [float(c) for c in columns]
        self._log_rows = np.log(rows).tolist()
        self._log_columns = np.log(columns).tolist()
        self._log_times = np.log(filled).tolist()
        self._row_cells: dict[float, tuple[int, float, float, float]] = {}
        self._column_array = np.asarray(self._columns)
        self._log_column_array = np.asarray(self._log_columns)
        self._time_array = np.asarray(self._log_times)

    def at(self, row: float, column: float) -> Timed:
        """Time at (row, column)."""
        i, u, row_scale, limit = self._row_cell(row)
        j, v = _cell(self._columns, self._log_columns, column)
        low, high = self._log_times[i], self._log_times[i + 1]
        near = low[j] + v * (low[j + 1] - low[j])
        far = high[j] + v * (high[j + 1] - high[j])
        time_ns = math.exp(near + u * (far - near)) * row_scale
        if column > self._columns[-1] and self._grows:
            time_ns *= column / self._columns[-1]
        ns = round(time_ns)
        return Timed(ns, ns if row_scale > 1.0 or column > limit else 0)

    def _row_cell(self, row: float) -> tuple[int, float, float, float]:
        """Cell of a row, its log-fraction, its scale beyond the last, its limit."""
        known = self._row_cells.get(row)
        if known is None:
            i, u = _cell(self._rows, self._log_rows, row)
            limit = self._limits[i] if u == 0.0 else self._limits[i + 1]
            known = i, u, max(row / self._rows[-1], 1.0), limit
            self._row_cells[row] = known
        return known

    def along(
        self, row: float, columns: Float
    ) -> tuple[Integer, npt.NDArray[np.bool_]]:
        """Times in ns along one row, and where they are extrapolated.

        Args:
            row: Row coordinate.
            columns: Column coordinates > 0, one-dimensional, increasing.

        Returns:
            Exactly what :meth:`at` gives for each column.
        """
        i, u, row_scale, limit = self._row_cell(row)
        low, high = self._time_array[i], self._time_array[i + 1]
        log_ns, inside = self._log_times_along(low, high, u, columns)
        ns = np.exp(log_ns)
        if row_scale > 1.0:
            ns *= row_scale
        if self._grows and not inside and columns[-1] > self._columns[-1]:
            ns *= np.maximum(columns / self._columns[-1], 1.0)
        outside = columns > (0.0 if row_scale > 1.0 else limit)
        return _rounded(ns, lambda k: self.at(row, float(columns[k]))), outside

    def _log_times_along(
        self, low: Float, high: Float, u: float, columns: Float
    ) -> tuple[Float, bool]:
        """Log of the times between two rows, and whether one cell holds all columns."""
        j: int | npt.NDArray[np.intp]
        j = cell = bisect_right(self._columns, columns[0]) - 1
        ends = self._columns[cell + 1 : cell + 2]
        inside = cell >= 0 and bool(ends) and bool(columns[-1] < ends[0])
        if inside:  # as in nearly every run of decodes: one cell for all is cheaper
            start, end = self._log_columns[cell : cell + 2]
            v = (np.log(columns) - start) / (end - start)
        else:
            j, v = _cells(self._column_array, self._log_column_array, columns)
        near: Float = low[j] + v * (low[j + 1] - low[j])
        if u:
            far = high[j] + v * (high[j + 1] - high[j])
            near += u * (far - near)
        return near, inside

    def many(self, rows: Float, columns: Float) -> Integer:
        """Times in ns at arrays of points, each exactly that of :meth:`at`.

        Args:
            rows: Row coordinates, one-dimensional.
            columns: Column coordinates, as many.
        """
        i, u = _cells(np.asarray(self._rows), np.asarray(self._log_rows), rows)
        j, v = _cells(self._column_array, self._log_column_array, columns)
        times = self._time_array
        low, high = times[i, j], times[i + 1, j]
        near = low + v * (times[i, j + 1] - low)
        far = high + v * (times[i + 1, j + 1] - high)
        ns = np.exp(near + u * (far - near)) * np.maximum(rows / self._rows[-1], 1.0)
        if self._grows:
            ns *= np.maximum(columns / self._columns[-1], 1.0)
        return _rounded(ns, lambda k: self.at(float(rows[k]), float(columns[k])))


def _fill(
    columns: Float, times_ns: Float, *, grows: bool, smooth: bool
) -> tuple[Float, list[float]]:
    """Fill each row's missing tail, in proportion or flat; also return its end."""
    filled = times_ns.copy()
    limits = []
    for row in filled:
        known = np.flatnonzero(np.isfinite(row))
        if smooth:
            row[known] = isotonic(row[known])
        last = int(known[-1])
        growth = columns[last + 1 :] / columns[last] if grows else 1.0
        row[last + 1 :] = row[last] * growth
        inner = ~np.isfinite(row)
        row[inner] = np.interp(columns[inner], columns[~inner], row[~inner])
        limits.append(float(columns[last]))
    return filled, limits


def _cell(axis: list[float], logs: list[float], value: float) -> tuple[int, float]:
    """Index of the cell that holds ``value`` and its log-fraction, clamped to it."""
    if value <= axis[0]:
        return 0, 0.0
    if value >= axis[-1]:
        return len(axis) - 2, 1.0
    i = bisect_right(axis, value) - 1
    return i, (math.log(value) - logs[i]) / (logs[i + 1] - logs[i])


def _cells(
    axis: Float, logs: Float, values: Float
) -> tuple[npt.NDArray[np.intp], Float]:
    """What :func:`_cell` gives, for an array of values."""
    i = axis.searchsorted(values, side="right") - 1
    i = np.minimum(np.maximum(i, 0), axis.size - 2)
    start = logs[i]
    w = (np.log(np.maximum(values, axis[0])) - start) / (logs[i + 1] - start)
    return i, np.minimum(np.maximum(w, 0.0), 1.0)


def _rounded(ns: Float, exact: Callable[[int], Timed]) -> Integer:
    """Round to integers; ask ``exact`` where the last bits could decide how."""
    nearest = np.rint(ns)
    rounded = nearest.astype(np.int64)
    margin = np.abs(ns - nearest)
    most = np.maximum.reduce  # (the method max takes as long again to get here)
    if most(margin, initial=0.0) >= 0.5 - _LAST_BITS * most(ns, initial=0.0):
        undecided = np.abs(margin - 0.5) <= _LAST_BITS * ns
        for i in undecided.nonzero()[0].tolist():
            rounded[i] = exact(i).ns
    return rounded
