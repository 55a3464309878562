"""Time to load a profile and cost of one query; printed, not judged.

CPU time: what else runs on the machine does not count, nor does a cold disk.

python -m tests.benchmarks.bench_calibration
"""

# ruff: noqa: T201  (printing is all it does)

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from calibration.kernels.interpolate import LogLogCurve, LogLogGrid
from calibration.tables import KernelTables, load_tables
from sim.build import build_machine
from sim.config_file import load_config

_REPEATS = 5
_QUERIES = 100_000
_GPU = "h100_sxm"


def main() -> None:
    """Print the median of five for each, and the targets."""
    config = load_config(None, [])
    build_machine(config)  # imports and catalogues once, as any program does
    tables = load_tables(_GPU)
    print(f"CPU time, median of {_REPEATS}")
    print(f"load_tables({_GPU!r}): {1e3 * _median_s(lambda: load_tables(_GPU)):.1f} ms")
    load_s = _median_s(lambda: build_machine(config))
    print(f"build_machine, tables included: {1e3 * load_s:.1f} ms (target < 50)")
    sizes = np.geomspace(1, 16384, _QUERIES)
    batches = np.geomspace(1, 256, _QUERIES)
    curve, grid = _moe_curve(tables), _decode_grid(tables)
    curve_at, grid_at = curve.at, grid.at
    one_by_one = list(zip(batches.tolist(), sizes.tolist(), strict=True))
    _print("curve, scalar", lambda: [curve_at(size) for _, size in one_by_one])
    _print("curve, array", lambda: curve.many(sizes))
    _print("grid, scalar", lambda: [grid_at(b, size) for b, size in one_by_one])
    _print("grid, array", lambda: grid.many(batches, sizes))


def _print(name: str, queries: Callable[[], object]) -> None:
    each_us = 1e6 * _median_s(queries) / _QUERIES
    target = " (target < 2)" if name.endswith("array") else ""
    print(f"{name}: {each_us:.3f} us per query{target}")


def _median_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def _moe_curve(tables: KernelTables) -> LogLogCurve:
    """Experts of Qwen3-30B-A3B at TP2."""
    rows = tables.select(
        "moe",
        dtype="bfloat16",
        hidden_size=2048,
        inter_size=768,
        moe_tp_size=2,
        distribution="power_law_1.2",
    )
    tokens, times = rows["num_tokens"], rows["latency_ns"]
    return LogLogCurve(tokens.astype(np.float64), times.astype(np.float64))


def _decode_grid(tables: KernelTables) -> LogLogGrid:
    """Decode attention of Qwen3-30B-A3B at TP2."""
    rows = tables.select(
        "decode_attention",
        kv_dtype="bfloat16",
        num_heads=16,
        num_key_value_heads=2,
        head_dim=128,
        window_size=0,
    )
    batches, i = np.unique(rows["batch_size"], return_inverse=True)
    steps, j = np.unique(rows["step"], return_inverse=True)
    times = np.full((batches.size, steps.size), np.nan)
    times[i, j] = rows["latency_ns"]
    return LogLogGrid(batches.astype(np.float64), steps.astype(np.float64) + 1.0, times)


if __name__ == "__main__":
    main()
