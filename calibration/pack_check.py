"""Checks of an imported pack: kernels are looked up in it by bisection, unchecked."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from calibration.pack_format import LATENCY
from calibration.pack_sources import MOE_TABLES
from calibration.profiler.columns import TABLES, WORDS
from sim.config_errors import clip
from sim.errors import ConfigError

_ENERGY: Final = "energy_uj"
_LARGEST: Final = 1 << 48
_LONGEST_NS: Final = 10**12
"""A kernel of 1000 seconds; sums of many still fit in 64 bits."""


def _keys() -> dict[str, tuple[str, ...]]:
    """Table -> key columns in a pack, of those that kernels are looked up in."""
    prefill = tuple(c for c in TABLES["prefill_attention"] if c != "prefix")
    moe = tuple(c for c in TABLES["moe"] if c != "touched_experts")
    touched = tuple(c for c in TABLES["moe"] if c != "distribution")
    return {
        **TABLES,
        "gemm_block": TABLES["gemm"],
        "prefill_attention": prefill,
        "prefill_attention_prefix": TABLES["prefill_attention"],
        **dict.fromkeys(MOE_TABLES, moe),
        "moe_touched": touched,
    }


KEYS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(_keys())


def check_table(file: str, table: str, columns: Mapping[str, NDArray[Any]]) -> None:
    """Check that a table has its columns and that its rows ascend, each key once.

    Tables that nothing is looked up in are not looked at.

    Raises:
        ConfigError: One line with file, table and what is wrong.
    """
    keys = KEYS.get(table)
    if keys is None:
        return
    where = f"{clip(file)}: {table}"
    missing = {*keys, LATENCY} ^ (set(columns) - {_ENERGY})
    if missing:
        raise ConfigError(
            f"{where}: columns {clip(', '.join(sorted(columns)), 200)}; allowed:"
            f" {', '.join((*keys, LATENCY))}"
        )
    for name, column in columns.items():
        most = _LONGEST_NS if name == LATENCY else _LARGEST
        words = column.dtype.kind == "U"
        if words != (name in WORDS) or (not words and column.max(initial=0) > most):
            raise ConfigError(
                f"{where}/{clip(name)}: damaged; allowed: words where they belong,"
                f" and numbers up to {most}"
            )
    rows = len(columns[LATENCY])
    ascends = np.zeros(max(rows - 1, 0), dtype=np.bool_)
    equal = ~ascends
    for key in keys:
        before, after = columns[key][:-1], columns[key][1:]
        ascends |= equal & (before < after)
        equal &= before == after
    if not rows or not ascends.all():
        raise ConfigError(
            f"{where}: {rows} rows; allowed: one or more, each key once, in"
            " ascending order"
        )
