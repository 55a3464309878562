"""Leave-one-out error: how well interpolation predicts what it has not been shown.

Every interior profiled point is left out in turn, the interpolator that the simulator
uses is built again without it, and its answer is compared with the measurement. On a
grid a whole row or column is left out, for one missing cell would be filled from its
own row and never be interpolated as a query is. The ends of a slice are not judged:
without them there is nothing to interpolate.

A slice is what shares every key but the interpolated ones. Of the large tables every
thirteenth (GEMM) or fifth (decode attention) is judged, always the same ones: 13 has
no factor in common with the 20 to 22 widths and depths of a GEMM table, so the sample
meets all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from calibration.kernels.experts import TABLE_LAW
from calibration.kernels.gemm import Gemms
from calibration.kernels.interpolate import Float, LogLogCurve, LogLogGrid
from calibration.pack_format import LATENCY
from calibration.pack_sources import DEEPEP_TABLES, MOE_TABLES
from calibration.tables import KernelTables

COLUMNS: Final = (
    "gpu",
    "framework",
    "table",
    "axis",
    "variant",
    "slices",
    "points",
    "mape",
    "bias",
    "p90",
    "worst",
    "where",
)
_GEMM_STRIDE: Final = 13
_DECODE_STRIDE: Final = 5
_UNKEYED: Final = (LATENCY, "energy_uj")  # measured, no keys

Rows = dict[str, npt.NDArray[np.int64]]
"""One slice: its columns, sorted by the interpolated keys."""


class LeftOut(NamedTuple):
    """One point that was left out.

    Attributes:
        axis: Key along which it was left out.
        row: Its row in the slice.
        predicted_ns: Time interpolated without it.
    """

    axis: str
    row: int
    predicted_ns: int


@dataclass(frozen=True, slots=True)
class _Family:
    """How the tables of a kernel family are interpolated.

    Attributes:
        axes: Interpolated keys.
        variant: Key whose values are judged apart.
        leave_out: Gives every interior point of a slice.
        stride: Every how many slices one is judged.
        only: Values of the rows that the simulator interpolates.
    """

    axes: tuple[str, ...]
    variant: str
    leave_out: Callable[[Rows], Iterator[LeftOut]]
    stride: int = 1
    only: Mapping[str, int | str] = field(default_factory=dict)


def leave_one_out(tables: KernelTables) -> pd.DataFrame:
    """Leave-one-out errors of every kernel table of one GPU.

    Errors are predicted / measured - 1.

    Args:
        tables: The profiled tables.

    Returns:
        One row per table, interpolated key and variant (data type; launch or operation
        of a collective), with `COLUMNS`: judged slices and points, mean absolute
        relative error ``mape``, mean signed error ``bias``, 90th percentile of the
        absolute error ``p90``, the signed error of the ``worst`` point and ``where``
        it lies.
    """
    rows = [
        {
            "gpu": tables.gpu,
            "framework": tables.framework,
            "table": name,
            "axis": axis,
            "variant": variant,
        }
        | _summary(group)
        for name, family in _FAMILIES.items()
        if name in tables.names
        for (axis, variant), group in _errors(tables, name, family).groupby(
            ["axis", "variant"], sort=True
        )
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _errors(tables: KernelTables, name: str, family: _Family) -> pd.DataFrame:
    """Error of every judged point: axis, variant, slice, error, where."""
    selected = pd.DataFrame(tables.select(name, **family.only))
    keys = [c for c in selected if c not in (*family.axes, *_UNKEYED)]
    found: list[dict[str, Any]] = []
    groups = list(selected.groupby(keys, sort=True))[:: family.stride]
    for number, (_, group) in enumerate(groups):
        ordered = group.sort_values(list(family.axes), kind="stable")
        rows = {str(c): ordered[c].to_numpy() for c in ordered}
        for axis, index, predicted_ns in family.leave_out(rows):
            found.append(
                {
                    "axis": axis,
                    "variant": str(rows[family.variant][index]),
                    "slice": number,
                    "error": predicted_ns / int(rows[LATENCY][index]) - 1.0,
                    "where": (rows, index),
                }
            )
    return pd.DataFrame(found, columns=["axis", "variant", "slice", "error", "where"])


def _summary(group: pd.DataFrame) -> dict[str, Any]:
    errors = group["error"].to_numpy(dtype=np.float64)
    worst = int(np.argmax(np.abs(errors)))
    rows, index = group["where"].iloc[worst]
    return {
        "slices": int(group["slice"].nunique()),
        "points": errors.size,
        "mape": float(np.abs(errors).mean()),
        "bias": float(errors.mean()),
        "p90": float(np.quantile(np.abs(errors), 0.9)),
        "worst": float(errors[worst]),
        "where": " ".join(
            f"{k}={v[index]}" for k, v in rows.items() if k not in _UNKEYED
        ),
    }


def _curve(axis: str) -> Callable[[Rows], Iterator[LeftOut]]:
    """Leave points out of a log-log curve over one key."""

    def leave_out(rows: Rows) -> Iterator[LeftOut]:
        sizes, times = rows[axis].astype(np.float64), rows[LATENCY].astype(np.float64)
        for i in range(1, sizes.size - 1):
            curve = LogLogCurve(np.delete(sizes, i), np.delete(times, i))
            yield LeftOut(axis, i, curve.at(float(sizes[i])).ns)

    return leave_out


class _WithoutOne:
    """Stands in for tables: one GEMM slice without one of its rows."""

    gpu = ""

    def __init__(self, rows: Rows, index: int) -> None:
        self._rows = {k: np.delete(v, index) for k, v in rows.items()}

    def select(self, _table: str, **_: int | str) -> Rows:
        """The rows that are left."""
        return self._rows


def _gemm(rows: Rows) -> Iterator[LeftOut]:
    """Leave row counts out of one [n, k] shape."""
    n, k, dtype = int(rows["n"][0]), int(rows["k"][0]), str(rows["dtype"][0])
    for i in range(1, rows["m"].size - 1):
        # Gemms asks its tables for nothing but the rows of one format.
        gemms = Gemms(cast(KernelTables, _WithoutOne(rows, i)), dtype)
        yield LeftOut("m", i, gemms.at(int(rows["m"][i]), n, k).ns)


def _decode(new_tokens: int) -> Callable[[Rows], Iterator[LeftOut]]:
    """Leave batch sizes and lengths out of grids, a whole line at a time.

    A row attends to its step and to ``new_tokens`` tokens that the step leaves out.
    """

    def leave_out(rows: Rows) -> Iterator[LeftOut]:
        names = ("batch_size", "step")
        (batches, i), (steps, j) = (
            np.unique(rows[key], return_inverse=True) for key in names
        )
        times = np.full((batches.size, steps.size), np.nan)
        times[i, j] = rows[LATENCY]
        axes = (batches.astype(np.float64), steps.astype(np.float64) + new_tokens)
        where = (i, j)
        grows = not ("window_size" in rows and rows["window_size"][0])
        for number, line in _inner_lines(times):
            grid = _without_line(axes, times, number, line, grows=grows)
            beyond = times.take(line + 1, number)
            for index in np.flatnonzero(where[number] == line).tolist():
                # Next to the truncated corner a point is the end of its line.
                if np.isfinite(beyond[where[1 - number][index]]):
                    at = grid.at(float(axes[0][i[index]]), float(axes[1][j[index]]))
                    yield LeftOut(names[number], index, at.ns)

    return leave_out


def _inner_lines(times: Float) -> Iterator[tuple[int, int]]:
    """(axis, line) of every inner line of a grid; none if it is not a grid."""
    if min(times.shape) > 1:
        for number, size in enumerate(times.shape):
            yield from ((number, line) for line in range(1, size - 1))


def _without_line(
    axes: tuple[Float, Float], times: Float, number: int, line: int, *, grows: bool
) -> LogLogGrid:
    left = list(axes)
    left[number] = np.delete(left[number], line)
    return LogLogGrid(left[0], left[1], np.delete(times, line, number), grows=grows)


_ONE_PROMPT: Final = {"batch_size": 1}
_PREFILL: Final = _Family(("isl",), "kv_dtype", _curve("isl"), only=_ONE_PROMPT)
_EXPERTS: Final = _Family(
    ("num_tokens",),
    "dtype",
    _curve("num_tokens"),
    only={"distribution": TABLE_LAW},
)
_GEMM: Final = _Family(("m",), "dtype", _gemm, _GEMM_STRIDE)
_DECODE_AXES: Final = ("batch_size", "step")
_BY_BYTES: Final = _curve("message_size")

_FAMILIES: Final[Mapping[str, _Family]] = {
    "gemm": _GEMM,
    "gemm_block": _GEMM,
    "prefill_attention": _PREFILL,
    "decode_attention": _Family(_DECODE_AXES, "kv_dtype", _decode(1), _DECODE_STRIDE),
    "mla_prefill": _PREFILL,
    "mla_prefill_module": replace(_PREFILL, variant="dtype"),
    "mla_decode": _Family(_DECODE_AXES, "kv_dtype", _decode(1)),
    "mla_decode_module": _Family(_DECODE_AXES, "dtype", _decode(0)),
    "mla_bmm": replace(_EXPERTS, only={}),
    **dict.fromkeys(MOE_TABLES, _EXPERTS),
    **dict.fromkeys(DEEPEP_TABLES, replace(_EXPERTS, variant="phase", only={})),
    "custom_allreduce": _Family(("message_size",), "backend", _BY_BYTES),
    "nccl": _Family(("message_size",), "op_name", _BY_BYTES),
}
