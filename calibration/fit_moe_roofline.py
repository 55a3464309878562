"""Fit one roofline per profiled MoE slice; run when the packs change.

    python -m calibration.fit_moe_roofline [--all]

Writes ``calibration/data/moe_roofline.json``, which the
run time reads: per slice the parameters of a ``MoeRoofline`` and the mean absolute
relative error of the fit over the slice's rows. Slices that the file holds already are
kept, unless ``--all`` is given.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from calibration.hardware import Gpu, gpu
from calibration.kernels.experts import TABLE_LAW
from calibration.kernels.moe_roofline import BYTES_PER_EXPERT_WEIGHT, MoeSlice
from calibration.kernels.roofline_file import (
    load_key,
    rooflines_document,
    slice_key,
)
from calibration.kernels.routing_model import SyntheticLoad, synthetic_load
from calibration.pack_set import read_provenance
from calibration.pack_sources import MOE_TABLES
from calibration.tables import DATA_DIR, KernelTables, load_tables
from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.files import write_atomic

FILE: Final = "moe_roofline.json"

_TILES = (16, 64, 128)
_TOKENS = sorted([2**i for i in range(17)] + [3 * 2**i for i in range(4, 15)])
_KEYS = tuple(MoeSlice.__dataclass_fields__)
_LAWS = ("balanced", "power_law_1.01", "power_law_1.2")
_FEWEST_ROWS = 6  # one more than there are parameters
Float = npt.NDArray[np.float64]
Document = dict[str, dict[str, Any]]
_NONE: Final[Document] = {"slices": {}, "loads": {}}


def fit_set(folder: Path, known: Document) -> Document:
    """The fits of every MoE slice of a calibration set.

    Args:
        folder: the set.
        known: fits that need not be done again, by slice.
    """
    packs = read_provenance(folder).values()
    tables = [load_tables(p["gpu"], folder, p["framework"]) for p in packs]
    return fit_tables(tables, known)


def fit_tables(packs: Iterable[KernelTables], known: Document) -> Document:
    """The fits of every MoE slice of some packs; slices in `known` are copied."""
    slices: dict[str, dict[str, float]] = {}
    loads: dict[str, Any] = {"tokens": _TOKENS}
    for tables in packs:
        for table in sorted(set(MOE_TABLES) & set(tables.names)):
            for dtype, moe_slice in _slices(tables, table):
                key = slice_key(tables.pack, table, dtype, moe_slice)
                fit = known["slices"].get(key) or _fit_slice(
                    tables, gpu(tables.gpu), table, dtype, moe_slice
                )
                slices[key] = fit
                load = load_key(moe_slice, int(fit["tile"]))
                if load not in loads:
                    loads[load] = known["loads"].get(load) or _load_rows(
                        moe_slice, int(fit["tile"])
                    )
    return {"slices": slices, "loads": loads}


def document_bytes(document: Document) -> bytes:
    """The file of some fits: the same bytes for the same fits."""
    return json.dumps(document, sort_keys=True, indent=0).encode() + b"\n"


def _slices(tables: KernelTables, table: str) -> Iterator[tuple[str, MoeSlice]]:
    for dtype in sorted(BYTES_PER_EXPERT_WEIGHT):
        rows = tables.select(table, dtype=dtype)
        keys = np.stack([rows[k] for k in _KEYS])
        for key, count in zip(*_counted(keys), strict=True):
            if count >= _FEWEST_ROWS:
                yield dtype, MoeSlice(*(int(v) for v in key))


def _counted(keys: npt.NDArray[np.int64]) -> tuple[Any, Any]:
    unique, counts = np.unique(keys, axis=1, return_counts=True)
    return unique.T, counts


def _load(moe_slice: MoeSlice, tokens: int, law: str, tile: int) -> SyntheticLoad:
    experts, ranks = moe_slice.num_experts, moe_slice.moe_ep_size
    return synthetic_load(tokens, experts, moe_slice.topk, ranks, law, tile)


def _load_rows(moe_slice: MoeSlice, tile: int) -> list[list[float]]:
    loads = [_load(moe_slice, tokens, TABLE_LAW, tile) for tokens in _TOKENS]
    return [
        [round(load.touched, 3) for load in loads],
        [round(load.padded_pairs, 1) for load in loads],
        [round(load.pairs, 1) for load in loads],
    ]


def _fit_slice(
    tables: KernelTables, device: Gpu, table: str, dtype: str, moe_slice: MoeSlice
) -> dict[str, float]:
    columns: list[tuple[float, int, str]] = []
    for law in _LAWS:
        rows = tables.select(
            table,
            dtype=dtype,
            distribution=law,
            **{key: getattr(moe_slice, key) for key in _KEYS},
        )
        for tokens, ns in zip(rows["num_tokens"], rows["latency_ns"], strict=True):
            columns.append((float(ns), int(tokens), law))
    fits = [_fit_tile(columns, device, dtype, moe_slice, tile) for tile in _TILES]
    return min(fits, key=lambda fit: fit["fit_error"])


def _fit_tile(
    columns: list[tuple[float, int, str]],
    device: Gpu,
    dtype: str,
    moe_slice: MoeSlice,
    tile: int,
) -> dict[str, float]:
    loads = [_load(moe_slice, tokens, law, tile) for _, tokens, law in columns]
    measured = np.array([ns for ns, _, _ in columns])
    width = BYTES_PER_EXPERT_WEIGHT[dtype]
    weights = np.array([moe_slice.weight_bytes(x.touched, width) for x in loads])
    flops = np.array([moe_slice.flops(x.padded_pairs) for x in loads])
    activations = np.array([moe_slice.activation_bytes(x.pairs) for x in loads])
    hbm = device.hbm_bandwidth_bytes_per_s / 1e9
    peak = device.flops("fp8" if dtype == "fp8" else "bfloat16") / 1e9

    def model(p: Float) -> Float:
        bound = (weights / (p[1] * hbm)) ** p[3] + (flops / (p[2] * peak)) ** p[3]
        time: Float = p[0] * 1e3 + bound ** (1 / p[3]) + activations / (p[4] * 1e3)
        return time

    # Bandwidth and peak are bounded by the machine: they are not identifiable apart
    # from the activation term otherwise.
    fit = least_squares(
        lambda p: np.log(model(p) / measured),
        x0=[20.0, 0.8, 0.6, 3.0, 1.5],
        bounds=([2.0, 0.1, 0.02, 1.0, 0.2], [80.0, 0.95, 0.9, 8.0, 20.0]),
    )
    error = np.abs(model(fit.x) / measured - 1)
    return {
        "t0_ns": round(float(fit.x[0]) * 1e3, 1),
        "bytes_per_ns": round(float(fit.x[1]) * hbm, 2),
        "flops_per_ns": round(float(fit.x[2]) * peak, 1),
        "q": round(float(fit.x[3]), 3),
        "activation_bytes_per_ns": round(float(fit.x[4]) * 1e3, 1),
        "tile": tile,
        "fit_error": round(float(error.mean()), 4),
    }


def read_fits(path: Path) -> Document:
    """The fits of a file, none if there is no such file.

    Raises:
        ConfigError: if it is not a file of fits.
    """
    if not os.path.exists(path):
        return {"slices": {}, "loads": {}}
    document = rooflines_document(path)
    slices, loads = document.get("slices"), document.get("loads")
    if not isinstance(slices, dict) or not isinstance(loads, dict):
        raise ConfigError(f"{one_line(str(path))}: not a file of MoE rooflines")
    return {"slices": slices, "loads": loads}


def summary(slices: Mapping[str, Mapping[str, float]]) -> str:
    """How many fits there are and how good, in a few words."""
    if not slices:
        return "no MoE slices"
    errors = [fit["fit_error"] for fit in slices.values()]
    median, worst = np.median(errors), max(errors)
    return f"{len(slices)} MoE slices, mean error {median:.1%}, worst {worst:.1%}"


def main() -> None:
    """Fit every slice of every shipped pack and write the result."""
    path = DATA_DIR / FILE
    again = "--all" in sys.argv[1:]
    document = fit_set(DATA_DIR, _NONE if again else read_fits(path))
    write_atomic(path, document_bytes(document))
    sys.stdout.write(summary(document["slices"]) + "\n")


if __name__ == "__main__":
    main()
