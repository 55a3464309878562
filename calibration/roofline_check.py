"""How far to believe the MoE rooflines: errors of the fit, and on held-out routing.

Table values are used inside the profiled range, so these errors matter for what a
roofline corrects (experts really touched) and for what lies outside the range.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Final, cast

import numpy as np
import pandas as pd

from calibration.hardware import gpu
from calibration.kernels.experts import TABLE_LAW
from calibration.kernels.moe_roofline import (
    BYTES_PER_EXPERT_WEIGHT,
    MoeRoofline,
    MoeSlice,
)
from calibration.kernels.routing_model import synthetic_load
from calibration.pack_format import LATENCY
from calibration.tables import KernelTables

FIT_COLUMNS: Final = (
    *("gpu", "framework", "table", "variant"),
    *("slices", "median", "p90", "worst", "where"),
)
ROUTING_COLUMNS: Final = (
    *("gpu", "framework", "moe_tp_size", "moe_ep_size"),
    *("points", "mape", "bias"),
)
QWEN3_30B_SPLITS: Final = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (4, 1), (8, 1))
"""(moe_tp_size, moe_ep_size) of the slices checked by default."""

_QWEN3_30B: Final = (2048, 768, 8, 128)


def roofline_fit_errors(tables: KernelTables) -> pd.DataFrame:
    """Fit errors of a pack's MoE rooflines, over the slices of each weight format.

    Args:
        tables: The profiled tables.

    Returns:
        Columns gpu, framework, table, variant (weight format), slices, and the median,
        p90 and worst of the slices' mean absolute relative errors, with the worst's
        ``where``. No rows where no roofline was fitted.
    """
    path = resources.files("calibration").joinpath("data/moe_roofline.json")
    fits: dict[str, dict[str, Any]] = json.loads(path.read_text())["slices"]
    frame = pd.DataFrame(
        [(*key.split("/"), fit["fit_error"]) for key, fit in fits.items()],
        columns=["pack", "table", "variant", "where", "error"],
    )
    rows = [
        {
            "gpu": tables.gpu,
            "framework": tables.framework,
            "table": table,
            "variant": variant,
            "slices": len(group),
            "median": float(group["error"].median()),
            "p90": float(group["error"].quantile(0.9)),
            "worst": float(group["error"].max()),
            "where": group["where"].iloc[int(group["error"].argmax())],
        }
        for (table, variant), group in frame[frame["pack"] == tables.pack].groupby(
            ["table", "variant"]
        )
    ]
    return pd.DataFrame(rows, columns=list(FIT_COLUMNS))


def held_out_routing(
    tables: KernelTables, splits: tuple[tuple[int, int], ...] = QWEN3_30B_SPLITS
) -> pd.DataFrame:
    """Error on a routing law that the fit has not seen, for Qwen3-30B-A3B in bfloat16.

    Fitted to all other laws of a slice, tested on the law whose rows the simulator
    uses (``power_law_1.2``).

    Args:
        tables: The profiled tables.
        splits: (moe_tp_size, moe_ep_size) of the slices.

    Returns:
        One row per profiled split, with `ROUTING_COLUMNS`: points, and mean absolute
        and mean signed relative error.
    """
    rows = []
    for tp, ep in splits:
        moe_slice = MoeSlice(*_QWEN3_30B, tp, ep)
        measured = _rows(tables, moe_slice)
        if measured["num_tokens"].size:
            errors = _held_out_errors(tables, moe_slice, measured)
            rows.append(
                {
                    "gpu": tables.gpu,
                    "framework": tables.framework,
                    "moe_tp_size": tp,
                    "moe_ep_size": ep,
                    "points": errors.size,
                    "mape": float(np.abs(errors).mean()),
                    "bias": float(errors.mean()),
                }
            )
    return pd.DataFrame(rows, columns=list(ROUTING_COLUMNS))


def _rows(tables: KernelTables, moe_slice: MoeSlice) -> dict[str, Any]:
    keys = {key: getattr(moe_slice, key) for key in MoeSlice.__dataclass_fields__}
    return tables.select("moe", dtype="bfloat16", distribution=TABLE_LAW, **keys)


def _held_out_errors(
    tables: KernelTables, moe_slice: MoeSlice, measured: dict[str, Any]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    from calibration.fit_moe_roofline import _fit_slice  # noqa: PLC0415  (SciPy)

    hidden = cast(KernelTables, _WithoutLaw(tables, TABLE_LAW))
    fit = _fit_slice(hidden, gpu(tables.gpu), "moe", "bfloat16", moe_slice)
    roofline = MoeRoofline(**cast(dict[str, Any], fit))
    width = BYTES_PER_EXPERT_WEIGHT["bfloat16"]
    predicted = []
    for tokens in measured["num_tokens"].tolist():
        load = synthetic_load(
            tokens,
            moe_slice.num_experts,
            moe_slice.topk,
            moe_slice.moe_ep_size,
            TABLE_LAW,
            roofline.tile,
        )
        predicted.append(
            roofline.at(
                moe_slice.weight_bytes(load.touched, width),
                moe_slice.flops(load.padded_pairs),
                moe_slice.activation_bytes(load.pairs),
            )
        )
    errors: np.ndarray[Any, np.dtype[np.float64]] = (
        np.array(predicted) / measured[LATENCY] - 1.0
    )
    return errors


class _WithoutLaw:
    """Stands in for tables: hides the rows of one routing law from a fit."""

    def __init__(self, tables: KernelTables, law: str) -> None:
        self._tables = tables
        self._law = law

    def select(self, table: str, **equals: int | str) -> dict[str, Any]:
        """The rows, none if they are those of the hidden law."""
        rows = self._tables.select(table, **equals)
        if equals["distribution"] == self._law:
            return {name: column[:0] for name, column in rows.items()}
        return rows
