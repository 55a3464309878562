"""The file of fitted MoE rooflines, and the synthetic loads they were fitted at."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from calibration.kernels.moe_roofline import MoeRoofline, MoeSlice
from calibration.tables import DATA_DIR, KernelTables
from sim.config_errors import clip, one_line
from sim.errors import ConfigError
from sim.input_file import read_bytes

Float = npt.NDArray[np.float64]

_FILE: Final = "moe_roofline.json"
_SHAPE: Final = re.compile(r"[1-9][0-9]{0,17}(-[1-9][0-9]{0,17}){5}")
_SHARPEST: Final = 100.0
_BLUNTEST: Final = 0.1
_FEWEST: Final = 1e-12
_MOST: Final = 1e30
"""Far beyond any rate or count; products of a few stay finite."""


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticLoads:
    """What the hottest rank gets from the tables' routing, by tokens of all ranks.

    Attributes:
        tokens: Increasing.
        touched: Experts touched on the rank.
        padded: Token-expert pairs, padded to tiles.
        pairs: Token-expert pairs.
    """

    tokens: Float
    touched: Float
    padded: Float
    pairs: Float

    def at(self, tokens: float) -> tuple[float, float, float]:
        """Experts touched, padded pairs and pairs; linear between token counts."""
        return (
            float(np.interp(tokens, self.tokens, self.touched)),
            float(np.interp(tokens, self.tokens, self.padded)),
            float(np.interp(tokens, self.tokens, self.pairs)),
        )


def roofline_file(data_dir: Path) -> Path:
    """The fitted rooflines beside the tables, else the shipped ones."""
    own = data_dir / _FILE
    return own if os.path.exists(own) else DATA_DIR / _FILE


def slice_key(pack: str, table: str, dtype: str, moe_slice: MoeSlice) -> str:
    """Name of a slice in the file."""
    return f"{pack}/{table}/{dtype}/{'-'.join(map(str, moe_slice.numbers))}"


def load_key(moe_slice: MoeSlice, tile: int) -> str:
    """Name of a synthetic load in the file."""
    numbers = (moe_slice.num_experts, moe_slice.topk, moe_slice.moe_ep_size, tile)
    return "-".join(map(str, numbers))


def fitted_roofline(
    tables: KernelTables, table: str, dtype: str, moe_slice: MoeSlice
) -> tuple[bool, MoeRoofline]:
    """The slice's own fit (True), or that of the nearest slice in the same format.

    Raises:
        ConfigError: If there is none, or the file is damaged.
    """
    fits = _section(tables.data_dir, "slices")
    key = slice_key(tables.pack, table, dtype, moe_slice)
    if key in fits:
        return True, _roofline(tables.data_dir, key)
    prefix = f"{tables.pack}/{table}/{dtype}/"
    near = [key for key in fits if key.startswith(prefix)]
    if not near:
        raise ConfigError(
            f"{tables.gpu}: no MoE kernel with {dtype} weights was profiled on this GPU"
        )

    def distance(key: str) -> float:
        numbers = key.removeprefix(prefix)
        if not _SHAPE.fullmatch(numbers):
            raise _damaged(tables.data_dir, key)
        pairs = zip(map(int, numbers.split("-")), moe_slice.numbers, strict=True)
        return math.fsum(abs(math.log(a / b)) for a, b in pairs)

    return False, _roofline(tables.data_dir, min(sorted(near), key=distance))


def synthetic_loads(data_dir: Path, moe_slice: MoeSlice, tile: int) -> SyntheticLoads:
    """The load a slice's table rows were measured at.

    Raises:
        ConfigError: If the file is damaged.
    """
    loads, key = _section(data_dir, "loads"), load_key(moe_slice, tile)
    try:
        tokens, columns = loads["tokens"], loads[key]
        touched, padded, pairs = columns
        if not all(len(column) == len(tokens) for column in columns):
            raise ValueError("columns of different lengths")
        if not all(_positive(value) for row in (tokens, *columns) for value in row):
            raise ValueError("not positive")
        if tokens != sorted(set(tokens)):
            raise ValueError("tokens not increasing")
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(data_dir, f"loads: {key}") from error
    return SyntheticLoads(
        *(np.array(row, dtype=np.float64) for row in (tokens, touched, padded, pairs))
    )


def _roofline(data_dir: Path, key: str) -> MoeRoofline:
    entry = _section(data_dir, "slices")[key]
    try:
        roofline = MoeRoofline(**entry)
    except TypeError as error:
        raise _damaged(data_dir, key) from error
    sound = all(
        _positive(value) for name, value in entry.items() if name != "fit_error"
    )
    if not sound or not isinstance(roofline.tile, int):
        raise _damaged(data_dir, key)
    if not _BLUNTEST <= roofline.q <= _SHARPEST:
        raise _damaged(data_dir, key)
    return roofline


def _positive(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and _FEWEST <= value <= _MOST  # type: ignore[operator]


def _section(data_dir: Path, name: str) -> Mapping[str, Any]:
    section = rooflines_document(roofline_file(data_dir)).get(name)
    if not isinstance(section, dict):
        raise _damaged(data_dir, name)
    return section


@lru_cache(maxsize=8)
def rooflines_document(path: Path) -> dict[str, Any]:
    """The file as it is, its entries unchecked.

    Raises:
        ConfigError: If it cannot be read or is no JSON object.
    """
    try:
        document = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        reason = one_line(str(error))
        raise ConfigError(
            f"{one_line(str(path))}: not a file of MoE rooflines: {reason}"
        ) from error
    if not isinstance(document, dict):
        raise ConfigError(f"{one_line(str(path))}: not a file of MoE rooflines")
    return document


def _damaged(data_dir: Path, where: str) -> ConfigError:
    path = one_line(str(roofline_file(data_dir)))
    return ConfigError(
        f"{path}: {clip(where)}: damaged; reinstall, or import the tables again"
    )
