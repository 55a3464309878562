"""What was profiled: ranges of every key, and where the points of a family lie."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd

from calibration.pack_format import LATENCY
from calibration.pack_sources import DEEPEP_TABLES, MOE_TABLES
from calibration.tables import KernelTables

RANGE_COLUMNS: Final = (
    "gpu",
    "framework",
    "table",
    "rows",
    "key",
    "distinct",
    "min",
    "max",
)
POINT_COLUMNS: Final = (
    *("gpu", "framework", "table"),
    *("x_key", "x", "y_key", "y", "rows"),
)

_UNKEYED: Final = (LATENCY, "energy_uj")  # measured, no keys
_SPLIT: Final = ("moe_tp_size", "moe_ep_size")
_PLANES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        **dict.fromkeys(("gemm", "gemm_block"), ("k", ("n",))),
        **dict.fromkeys(
            ("prefill_attention", "mla_prefill", "mla_prefill_module"),
            ("isl", ("batch_size",)),
        ),
        **dict.fromkeys(
            ("decode_attention", "mla_decode", "mla_decode_module"),
            ("step", ("batch_size",)),
        ),
        "mla_bmm": ("num_tokens", ("num_heads",)),
        **dict.fromkeys(MOE_TABLES, ("num_tokens", _SPLIT)),
        **dict.fromkeys(DEEPEP_TABLES, ("num_tokens", ("num_nodes", "hidden_size"))),
        "custom_allreduce": ("message_size", ("num_gpus",)),
        "nccl": ("message_size", ("num_gpus",)),
    }
)
"""By table: the key drawn from left to right, and the keys drawn upwards."""


def key_ranges(tables: KernelTables) -> pd.DataFrame:
    """Profiled values of every key of every table of one GPU.

    Args:
        tables: The profiled tables.

    Returns:
        One row per table and key, with `RANGE_COLUMNS`: rows of the table, number of
        distinct values, smallest and largest (of names: in alphabetical order).
    """
    found = []
    for table in tables.names:
        columns = tables.columns(table)
        rows = columns[LATENCY].size
        for key in (name for name in columns if name not in _UNKEYED):
            values = np.unique(columns[key])
            ends = (values[0], values[-1])
            low, high = (str(v) if values.dtype.kind == "U" else int(v) for v in ends)
            row = (rows, key, values.size, low, high)
            found.append((tables.gpu, tables.framework, table, *row))
    return pd.DataFrame(found, columns=list(RANGE_COLUMNS))


def profiled_points(tables: KernelTables) -> pd.DataFrame:
    """Where the profiled points of one GPU lie, in two keys of each table.

    Args:
        tables: The profiled tables.

    Returns:
        One row per table and point of its plane, with `POINT_COLUMNS`; ``y`` is text
        ("2", or "2 x 1" for a split in two keys) and ``rows`` how many rows share the
        point. Rows are in the order of x within the numerical order of y.
    """
    parts = []
    for table, (x_key, y_keys) in _PLANES.items():
        if table in tables.names:
            columns = tables.columns(table)
            keys = pd.DataFrame({key: columns[key] for key in (*y_keys, x_key)})
            counts = keys.groupby([*y_keys, x_key], sort=True).size().reset_index()
            y = counts[list(y_keys)].astype(str).agg(" x ".join, axis=1)
            part = {"table": table, "x_key": x_key, "x": counts[x_key], "y": y}
            part |= {"y_key": " x ".join(y_keys), "rows": counts[0]}
            parts.append(
                pd.DataFrame(part).assign(gpu=tables.gpu, framework=tables.framework)
            )
    if not parts:
        return pd.DataFrame(columns=list(POINT_COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(POINT_COLUMNS)]
