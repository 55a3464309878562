"""Fit one roofline per profiled MoE slice; run when the packs change.

    python -m calibration.fit_moe_roofline

Needs scipy (extra ``pack``). Writes ``calibration/data/moe_roofline.json``, which the
run time reads: per slice the parameters of a ``MoeRoofline`` and the mean absolute
relative error of the fit over the slice's rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from calibration.hardware import Gpu, gpu, gpu_names
from calibration.kernels.experts import TABLE_LAW, load_key, slice_key
from calibration.kernels.moe_roofline import BYTES_PER_EXPERT_WEIGHT, MoeSlice
from calibration.kernels.routing_model import synthetic_load
from calibration.tables import KernelTables, load_tables
from sim.files import write_atomic

_TILES = (16, 64, 128)
_TOKENS = sorted([2**i for i in range(17)] + [3 * 2**i for i in range(4, 15)])
_KEYS = tuple(MoeSlice.__dataclass_fields__)
Float = npt.NDArray[np.float64]
Rows = dict[str, npt.NDArray[np.int64]]


def main() -> None:
    """Fit every slice of every GPU and write the result."""
    slices: dict[str, dict[str, float]] = {}
    loads: dict[str, object] = {"tokens": _TOKENS}
    for name in gpu_names():
        tables = load_tables(name)
        for table in ("moe", "moe_untuned"):
            if table in tables.names:
                for dtype, moe_slice in _slices(tables, table):
                    fit = _fit_slice(tables, gpu(name), table, dtype, moe_slice)
                    slices[slice_key(name, table, dtype, moe_slice)] = fit
                    loads[load_key(moe_slice, int(fit["tile"]))] = _load_rows(
                        moe_slice, int(fit["tile"])
                    )
    path = Path(__file__).parent / "data" / "moe_roofline.json"
    document = {"slices": slices, "loads": loads}
    write_atomic(path, json.dumps(document, sort_keys=True, indent=0).encode() + b"\n")
    errors = [fit["fit_error"] for fit in slices.values()]
    summary = f"median {np.median(errors):.3f}, worst {max(errors):.3f}"
    print(f"{len(slices)} slices, mean relative error: {summary}")  # noqa: T201


def _slices(tables: KernelTables, table: str) -> Iterator[tuple[str, MoeSlice]]:
    for dtype in sorted(BYTES_PER_EXPERT_WEIGHT):
        rows = tables.select(table, dtype=dtype)
        for key in np.unique(np.stack([rows[k] for k in _KEYS]), axis=1).T:
            yield dtype, MoeSlice(*(int(v) for v in key))


def _load_rows(moe_slice: MoeSlice, tile: int) -> list[list[float]]:
    loads = [
        synthetic_load(
            tokens,
            moe_slice.num_experts,
            moe_slice.topk,
            moe_slice.moe_ep_size,
            TABLE_LAW,
            tile,
        )
        for tokens in _TOKENS
    ]
    return [
        [round(load.touched, 3) for load in loads],
        [round(load.padded_pairs, 1) for load in loads],
        [round(load.pairs, 1) for load in loads],
    ]


def _fit_slice(
    tables: KernelTables, device: Gpu, table: str, dtype: str, moe_slice: MoeSlice
) -> dict[str, float]:
    columns: list[tuple[float, int, str]] = []
    for law in ("balanced", "power_law_1.01", "power_law_1.2"):
        rows = tables.select(
            table,
            dtype=dtype,
            distribution=law,
            **{key: getattr(moe_slice, key) for key in _KEYS},
        )
        for tokens, ns in zip(rows["num_tokens"], rows["latency_ns"], strict=True):
            columns.append((float(ns), int(tokens), law))
    best: dict[str, float] | None = None
    for tile in _TILES:
        fit = _fit_tile(columns, device, dtype, moe_slice, tile)
        if best is None or fit["fit_error"] < best["fit_error"]:
            best = fit
    assert best is not None  # noqa: S101
    return best


def _fit_tile(
    columns: list[tuple[float, int, str]],
    device: Gpu,
    dtype: str,
    moe_slice: MoeSlice,
    tile: int,
) -> dict[str, float]:
    loads = [
        synthetic_load(
            tokens,
            moe_slice.num_experts,
            moe_slice.topk,
            moe_slice.moe_ep_size,
            law,
            tile,
        )
        for _, tokens, law in columns
    ]
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


if __name__ == "__main__":
    main()
