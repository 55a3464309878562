"""Kernel timings as CSV: what `calibrate profile` writes and `calibrate import` reads.

UTF-8 text with one header line. Every row is one measured kernel; cells of columns
that its table does not have are empty. Columns:

* ``table``: one of the tables below.
* the key columns of that table, as in `calibration.tables`:

  * ``gemm``: dtype, n, k, m.
  * ``prefill_attention``: kv_dtype, num_heads, num_key_value_heads, head_dim,
    window_size (0 = full), batch_size, isl, prefix. `isl` new tokens per request after
    `prefix` tokens whose keys and values are cached; heads are per GPU.
  * ``decode_attention``: kv_dtype, num_heads, num_key_value_heads, head_dim,
    window_size, batch_size, step (past KV length).
  * ``moe``: dtype, hidden_size, inter_size, topk, num_experts, moe_tp_size,
    moe_ep_size, distribution, num_tokens, touched_experts. Sizes are of the whole
    model, `num_tokens` and `touched_experts` those of all ranks. Distribution
    "touched" spreads the pairs evenly over exactly `touched_experts` experts; rows of
    the other laws leave that cell empty.
  * ``custom_allreduce``: backend ("graph" or "eager"), num_gpus, message_size (bytes).
  * ``nccl``: op_name, num_gpus, message_size (bytes, the whole buffer).

* ``latency_ns``: whole nanoseconds, positive.
* ``energy_mj``: board energy of one GPU and one kernel in millijoules; may be empty,
  and the column may be absent.
* ``kernel_source``: what ran, such as "flash_attn_varlen_func"; never empty.
* ``timer``: what `latency_ns` was measured by, "cupti" (from the begin of the first
  kernel to the end of the last) or "cuda-event" (events around the launch); may be
  empty or absent.
* ``event_ns``: the time by events, whichever was used; may be empty or absent.

Columns may come in any order; a file needs those of the tables it uses only. A kernel
is measured once: two rows with equal keys are refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from calibration.lookup import unknown_name
from calibration.profiler.columns import (
    COLUMNS,
    ENERGY,
    EVENT_NS,
    LATENCY,
    NOT_SET,
    SOURCE,
    TABLE,
    TABLES,
    TIMER,
    TOUCHED,
    WORDS,
    Kernel,
    KernelRow,
    Value,
    kernel,
    sort_key,
)
from calibration.profiler.row_check import Where, validate_row
from sim.config_errors import clip, one_line
from sim.errors import ConfigError
from sim.input_csv import csv_rows

__all__ = [
    "COLUMNS",
    "TABLES",
    "TOUCHED",
    "WORDS",
    "Kernel",
    "KernelRow",
    "Value",
    "csv_bytes",
    "kernel",
    "read_rows",
    "sort_key",
    "validate_row",
]

_MOST_ROWS: Final = 1 << 20
"""As many as a table of a pack may have; the largest shipped one has 71,484."""


def read_rows(path: Path) -> tuple[KernelRow, ...]:
    """All rows of a file, in its order.

    Raises:
        ConfigError: if the file cannot be read or is not in the schema: one line with
            file, line, column, value and what is allowed.
    """
    rows: list[KernelRow] = []
    lines: dict[Kernel, int] = {}
    header: list[str] | None = None
    for line, record in csv_rows(path):
        if header is None:
            header = _header(path, record)
            continue
        if len(record) != len(header):
            raise ConfigError(
                f"{one_line(str(path))}: line {line}: {len(record)} cells;"
                f" allowed: {len(header)}, as in the header"
            )
        row = validate_row(dict(zip(header, record, strict=True)), path, line)
        first = lines.setdefault(row.kernel, line)
        if first != line:
            raise Where(path, line).error(
                TABLE, row.kernel.name, f"a kernel once; line {first} has it already"
            )
        rows.append(row)
        if len(rows) > _MOST_ROWS:
            raise ConfigError(
                f"{one_line(str(path))}: too many rows; allowed: at most {_MOST_ROWS}"
            )
    if not rows:
        raise ConfigError(f"{one_line(str(path))}: no rows; allowed: one or more")
    return tuple(rows)


def csv_bytes(rows: Iterable[KernelRow]) -> bytes:
    """The file of some rows: sorted by table and keys, the same bytes for equal rows.

    Raises:
        ValueError: if two rows measure the same kernel.
    """
    ordered = sorted(rows, key=lambda row: sort_key(row.kernel))
    if len({row.kernel for row in ordered}) != len(ordered):
        raise ValueError("two rows measure the same kernel")
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_cells(row) for row in ordered)
    return text.getvalue().encode()


def _cells(row: KernelRow) -> dict[str, object]:
    keys: dict[str, object] = dict(row.kernel.keys)
    if keys.get("touched_experts") == NOT_SET:
        keys["touched_experts"] = ""
    energy = "" if row.energy_mj is None else repr(row.energy_mj)
    measured = {
        LATENCY: row.latency_ns,
        ENERGY: energy,
        SOURCE: row.kernel_source,
        TIMER: row.timer,
        EVENT_NS: "" if row.event_ns is None else row.event_ns,
    }
    return {TABLE: row.kernel.table, **keys, **measured}


def _header(path: Path, names: list[str]) -> list[str]:
    shown = one_line(str(path))
    for name in names:
        measured = (LATENCY, ENERGY, EVENT_NS)
        unit = next((c for c in measured if _base(c) == _base(name)), name)
        if unit != name:
            raise ConfigError(
                f'{shown}: line 1: column "{clip(name)}": unknown unit; allowed: {unit}'
            )
        if name not in COLUMNS:
            raise ConfigError(
                f"{shown}: line 1: {unknown_name('column', name, COLUMNS)}"
            )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f'{shown}: line 1: column "{twice}" twice; allowed: once')
    missing = next((c for c in (TABLE, LATENCY, SOURCE) if c not in names), None)
    if missing is not None:
        raise ConfigError(f'{shown}: line 1: no column "{missing}"; it is needed')
    return names


def _base(column: str) -> str:
    """The quantity of a measured column: "latency" of "latency_us"."""
    return column.casefold().partition("_")[0]
