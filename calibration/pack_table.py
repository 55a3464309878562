"""From the rows of a public table to the columns of a packed one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration import pack_format
from calibration.table_source import (
    BYTES_PER_ELEMENT,
    LICENCE,
    SHAPE_COLUMNS,
    TableSource,
)
from calibration.wheels import Wheel, read_member
from sim.errors import ConfigError

_GROUP: Final = (
    *("kv_cache_dtype", "num_heads", "num_key_value_heads", "head_dim"),
    "window_size",
)


class NoRowsError(ConfigError):
    """A public table holds none of the rows that were asked for."""


def split_phases(frame: pd.DataFrame, source: TableSource) -> pd.DataFrame:
    """One row per phase, with a `phase` and its `latency` in ms.

    Raises:
        ConfigError: if the table lacks a column of a phase.
    """
    if not source.phases:
        return frame
    needed = {column for columns in source.phases.values() for column in columns}
    if lacking := sorted(needed - set(frame)):
        raise ConfigError(f"{source.member}: no column {lacking[0]!r}")
    parts = [
        frame.assign(phase=phase, latency=frame[list(columns)].sum(axis=1) / 1e3)
        for phase, columns in source.phases.items()
    ]
    return pd.concat(parts, ignore_index=True)


def select_rows(frame: pd.DataFrame, source: TableSource) -> pd.DataFrame:
    """The rows and columns of a source table that are packed, strings renamed.

    Args:
        frame: a source table with its own column names and a `latency` in ms.
        source: what to keep.

    Returns:
        Key columns and `latency` (ms), unsorted and possibly with repeated keys.

    Raises:
        ConfigError: if the table lacks a column it needs.
    """
    missing = {c: v for c, v in source.absent.items() if c not in frame}
    frame = frame.assign(**missing)
    needed = {*source.keys.values(), *source.keep, "latency"}
    if lacking := sorted(needed - set(frame)):
        raise ConfigError(f"{source.member}: no column {lacking[0]!r}")
    kept = frame[_mask(frame, source)]
    if source.most_rows_of:
        kept = _most_rows(kept, source.most_rows_of)
    columns = {packed: kept[original] for packed, original in source.keys.items()}
    for packed, names in source.rename.items():
        columns[packed] = columns[packed].map(names)
    selected = pd.DataFrame({**columns, "latency": kept["latency"]})
    return selected.dropna(subset=list(source.rename))


def _mask(frame: pd.DataFrame, source: TableSource) -> pd.Series[bool]:
    latency = frame["latency"]
    mask = pd.Series(np.isfinite(latency) & (latency > 0), index=frame.index)
    if "version" in frame and (frame["version"] == source.version).any():
        mask &= frame["version"] == source.version
    for column, allowed in source.keep.items():
        mask &= frame[column].isin(allowed)
    if source.shapes:
        shapes = pd.MultiIndex.from_frame(frame[list(SHAPE_COLUMNS)])
        mask &= shapes.isin(source.shapes)
    if source.pure_split:
        mask &= (frame["moe_tp_size"] == 1) | (frame["moe_ep_size"] == 1)
    return mask


def _most_rows(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Per head shape, the rows of the commonest value; on a tie, the first by name."""
    counts = frame.groupby([*_GROUP, column]).size().reset_index(name="rows")
    counts = counts.sort_values(["rows", column], ascending=[False, True])
    best = counts.drop_duplicates(list(_GROUP))[[*_GROUP, column]]
    chosen = pd.MultiIndex.from_frame(best)
    found = pd.MultiIndex.from_frame(frame[[*_GROUP, column]])
    return frame[found.isin(chosen)]


def unique_rows(selected: pd.DataFrame, source: TableSource) -> pd.DataFrame:
    """One row per key, in key order: the median of repeated measurements.

    Raises:
        NoRowsError: if nothing is left, so the table is not the one expected.
    """
    if selected.empty:
        raise NoRowsError(f"{source.member}: no rows for table {source.table!r}")
    grouped = selected.groupby(list(source.keys), as_index=False, sort=True)
    unique = grouped.agg({"latency": "median"})
    if source.message_column:
        unique[source.message_column] *= BYTES_PER_ELEMENT
    return unique


def pack_columns(rows: pd.DataFrame, source: TableSource) -> dict[str, NDArray[Any]]:
    """The archive members of one table: compact keys, codes and latencies in ns."""
    members: dict[str, NDArray[Any]] = {}
    for column in source.keys:
        name = f"{source.table}/{column}"
        if column in source.rename:
            members |= pack_format.coded(name, rows[column].to_numpy(dtype=str))
        else:
            members[name] = pack_format.compact(rows[column].to_numpy(dtype=np.int64))
    latency_ns = pack_format.rounded_ns(rows["latency"].to_numpy(dtype=np.float64))
    members[f"{source.table}/{pack_format.LATENCY}"] = pack_format.compact(latency_ns)
    return members


def _strings(frame: pd.DataFrame, column: str) -> list[str]:
    if column not in frame:
        return []
    return sorted(str(value) for value in frame[column].unique())


def _kept(source: TableSource) -> list[str]:
    kept = [f"{column} in {list(values)}" for column, values in source.keep.items()]
    kept += [f"{c} in {sorted(names)}" for c, names in source.rename.items()]
    if source.shapes:
        kept.append(f"({', '.join(SHAPE_COLUMNS)}) in {list(source.shapes)}")
    if source.pure_split:
        kept.append("moe_tp_size or moe_ep_size is 1")
    if source.most_rows_of:
        kept.append(f"per head shape the {source.most_rows_of} with most rows")
    return kept


def _modified(source: TableSource, versions: list[str], repeated: int) -> list[str]:
    renamed = {
        old: new
        for names in source.rename.values()
        for old, new in names.items()
        if old != new
    }
    notes = [
        f"subset of rows: version {', '.join(versions)}, positive finite latency; "
        + "; ".join(_kept(source)),
        f"subset of columns, renamed: {dict(source.keys)}; values renamed: {renamed}",
        f"{repeated} repeated measurements merged by the median; rows sorted by key",
        "latency converted from ms to ns and rounded to "
        f"{pack_format.SIGNIFICANT_DIGITS} significant digits (error at most 0.05 %)",
        "stored as compressed NumPy columns of small unsigned integers",
    ]
    if source.phases:
        notes.append(f"a row per phase, from us: sums of {dict(source.phases)}")
    if source.message_column:
        notes.append(
            f"message size converted from elements to bytes (x {BYTES_PER_ELEMENT})"
        )
    return notes


def pack_table(
    wheel: Wheel, source: TableSource
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Archive members and provenance entry of one table.

    Raises:
        ConfigError: if the wheel does not hold the table or the table holds no rows.
    """
    whole, member_sha256 = read_member(wheel, source.member)
    frame = split_phases(whole, source)
    selected = select_rows(frame, source)
    rows = unique_rows(selected, source)
    used = frame.loc[selected.index]
    versions = _strings(used, "version") or [source.version]
    provenance = {
        "package": source.package,
        "package_version": wheel.version,
        "wheel": wheel.name,
        "wheel_sha256": wheel.sha256,
        "member": source.member,
        "member_sha256": member_sha256,
        "licence": LICENCE,
        "framework": _strings(used, "framework"),
        "framework_version": ", ".join(versions),
        "device": _strings(used, "device"),
        "kernel_source": _strings(used, "kernel_source"),
        "source_rows": len(whole),
        "rows": len(rows),
        "modified": _modified(source, versions, len(selected) - len(rows)),
    }
    return pack_columns(rows, source), provenance


def pack_tables(
    wheels: Mapping[str, Wheel], chosen: Iterable[TableSource]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any], list[str]]:
    """All tables of one pack.

    Args:
        wheels: package -> its wheel.
        chosen: the tables, in packing order.

    Returns:
        Archive members, provenance by table, and the names of optional tables that
        the wheel does not hold.

    Raises:
        ConfigError: if a table that is not optional is missing, or one is damaged.
    """
    members: dict[str, NDArray[Any]] = {}
    provenance: dict[str, Any] = {}
    absent: list[str] = []
    for source in chosen:
        wheel = wheels[source.package]
        try:
            if source.optional and source.member not in wheel.members:
                raise NoRowsError(f"{wheel.name}: no {source.member}")
            columns, provenance[source.table] = pack_table(wheel, source)
        except NoRowsError:
            if not source.optional:
                raise
            absent.append(source.table)
        else:
            members |= columns
    return members, provenance, absent
