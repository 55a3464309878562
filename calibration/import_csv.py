"""From a user's own kernel timings (`calibration.profiler.schema`) to one pack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from calibration import pack_format
from calibration.pack_set import Pack
from calibration.profiler.schema import TABLES, TOUCHED, KernelRow, read_rows, sort_key
from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.input_file import read_bytes

# Column along which a table's time grows with the work, all other keys equal.
_SIZE: Final = {
    "gemm": "m",
    "prefill_attention": "isl",
    "decode_attention": "step",
    "moe": "num_tokens",
    "custom_allreduce": "message_size",
    "nccl": "message_size",
}
LARGEST_DROP: Final = 0.5
"""More work in less than this share of the time is a mistake, or a disturbed
measurement to repeat: 0.13 % of the neighbouring rows of the shipped tables fall by
more (2,073 of 1.65 million; B200 GEMMs 1,069 of them)."""


def import_csv(path: Path, gpu: str, framework: str) -> Pack:
    """Pack the rows of a CSV file.

    Attention with a prefix and experts by the number touched go into tables of their
    own (`prefill_attention_prefix`, `moe_touched`), so that the other rows mean what
    they mean in the shipped packs. Energies become a column `energy_uj`, 0 where none
    was measured.

    Args:
        path: the file.
        gpu: catalogue name of the GPU it was measured on.
        framework: whose kernels they are.

    Raises:
        ConfigError: One line, if the file is not in the schema or cannot be true.
    """
    rows = sorted(read_rows(path), key=lambda row: sort_key(row.kernel))
    _check_growth(path, rows)
    by_table: dict[str, list[KernelRow]] = {}
    for row in rows:
        by_table.setdefault(_packed_table(row), []).append(row)
    digest = pack_format.sha256(read_bytes(path))
    members: dict[str, NDArray[Any]] = {}
    provenance = {}
    for table, found in by_table.items():
        members |= _columns(table, found)
        provenance[table] = {
            "package": "",
            "file": path.name,
            "file_sha256": digest,
            "licence": "",
            "framework": [framework],
            "kernel_source": sorted({row.kernel_source for row in found}),
            "timer": sorted({row.timer or "not said" for row in found}),
            "source_rows": len(rows),
            "rows": len(found),
            "modified": [f"{pack_format.SIGNIFICANT_DIGITS} significant digits kept"],
        }
    return Pack(gpu, framework, pack_format.npz_bytes(members), provenance)


def _packed_table(row: KernelRow) -> str:
    table, keys = row.kernel.table, row.kernel.keys
    if table == "prefill_attention" and keys["prefix"]:
        return "prefill_attention_prefix"
    if table == "moe" and keys["distribution"] == TOUCHED:
        return "moe_touched"
    return table


def _columns(table: str, rows: Sequence[KernelRow]) -> dict[str, NDArray[Any]]:
    source = rows[0].kernel.table
    unused = {
        "prefill_attention": {"prefix"},
        "moe": {"touched_experts"},
        "moe_touched": {"distribution"},
    }.get(table, set())
    members: dict[str, NDArray[Any]] = {}
    for column in TABLES[source]:
        if column in unused:
            continue
        values = [row.kernel.keys[column] for row in rows]
        name = f"{table}/{column}"
        if isinstance(values[0], str):
            members |= pack_format.coded(name, np.array(values, dtype=np.str_))
        else:
            members[name] = pack_format.compact(np.array(values, dtype=np.int64))
    energies = [round((row.energy_mj or 0.0) * 1e3) for row in rows]
    if any(energies):
        energy = np.array(energies, dtype=np.int64)
        members[f"{table}/energy_uj"] = pack_format.compact(energy)
    latency_ms = np.array([row.latency_ns for row in rows], dtype=np.float64) / 1e6
    latency = pack_format.compact(pack_format.rounded_ns(latency_ms))
    return members | {f"{table}/{pack_format.LATENCY}": latency}


def _check_growth(path: Path, rows: Iterable[KernelRow]) -> None:
    """More work, all else equal, must not take less than half the time."""
    before: dict[object, KernelRow] = {}
    for row in sorted(rows, key=lambda row: row.kernel.size(_SIZE[row.kernel.table])):
        keys = row.kernel.keys
        size = _SIZE[row.kernel.table]
        others = (row.kernel.table, *(keys[c] for c in keys if c != size))
        smaller = before.get(others)
        if smaller and row.latency_ns < LARGEST_DROP * smaller.latency_ns:
            raise ConfigError(
                f"{one_line(str(path))}: {row.kernel.name}: latency_ns ="
                f" {row.latency_ns}: allowed: at least half of the"
                f" {smaller.latency_ns} at {size} = {smaller.kernel.keys[size]}"
            )
        before[others] = row
