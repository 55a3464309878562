"""Build the packed kernel timings from the public wheels they are published in.

The timings are measured by NVIDIA and published, under Apache-2.0, inside the Python
wheels of aiconfigurator-core 0.12.0 and aiconfigurator 0.10.0. To rebuild the packs::

    pip install 'servescope[pack]'
    python -m calibration.build_pack --download

or, with the two wheels at hand::

    python -m calibration.build_pack --core CORE.whl --legacy LEGACY.whl [--out DIR]

The parquet tables are read straight out of the wheels; nothing of those packages is
installed, imported or run. The same wheels give the same bytes. What is kept is listed
in `calibration.pack_sources`, how it is stored in `calibration.pack_format`; what was
done is written to ``provenance.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration import pack_format
from calibration.pack_sources import (
    BYTES_PER_ELEMENT,
    CORE,
    GPUS,
    LEGACY,
    LICENCE,
    PACKAGE_VERSIONS,
    TableSource,
    sources,
)
from calibration.wheels import Wheel, download, open_wheel, read_member
from sim.errors import ConfigError
from sim.files import write_atomic

DATA_DIR = Path(__file__).parent / "data"
_SHAPE_COLUMNS = ["hidden_size", "inter_size", "topk", "num_experts"]


def select_rows(frame: pd.DataFrame, source: TableSource) -> pd.DataFrame:
    """The rows and columns of a source table that are packed, strings renamed.

    Args:
        frame: a source table with its own column names and a `latency` in ms.
        source: what to keep.

    Returns:
        Key columns and `latency` (ms), unsorted and possibly with repeated keys.
    """
    missing = {c: v for c, v in source.absent.items() if c not in frame}
    frame = frame.assign(**missing)
    latency = frame["latency"]
    mask = (frame["version"] == source.version) & np.isfinite(latency) & (latency > 0)
    for column, allowed in source.keep.items():
        mask &= frame[column].isin(allowed)
    if source.shapes:
        shapes = pd.MultiIndex.from_frame(frame[_SHAPE_COLUMNS])
        mask &= shapes.isin(source.shapes)
    kept = frame[mask]
    columns = {packed: kept[original] for packed, original in source.keys.items()}
    for packed, names in source.rename.items():
        columns[packed] = columns[packed].map(names)
    selected = pd.DataFrame({**columns, "latency": kept["latency"]})
    return selected.dropna(subset=list(source.rename))


def unique_rows(selected: pd.DataFrame, source: TableSource) -> pd.DataFrame:
    """One row per key, in key order: the median of repeated measurements.

    Raises:
        ConfigError: if nothing is left, so the table is not the one expected.
    """
    if selected.empty:
        raise ConfigError(f"{source.member}: no rows for table {source.table!r}")
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
            values, codes = np.unique(
                rows[column].to_numpy(dtype=str), return_inverse=True
            )
            members[name + pack_format.VALUES_SUFFIX] = values
            members[name] = pack_format.compact(codes.astype(np.int64))
        else:
            members[name] = pack_format.compact(rows[column].to_numpy(dtype=np.int64))
    latency_ns = pack_format.rounded_ns(rows["latency"].to_numpy(dtype=np.float64))
    members[f"{source.table}/{pack_format.LATENCY}"] = pack_format.compact(latency_ns)
    return members


def _strings(frame: pd.DataFrame, column: str) -> list[str]:
    return sorted(str(value) for value in frame[column].unique())


def _modified(source: TableSource, repeated: int) -> list[str]:
    kept = [f"{column} in {list(values)}" for column, values in source.keep.items()]
    kept += [f"{c} in {sorted(names)}" for c, names in source.rename.items()]
    if source.shapes:
        kept.append(f"({', '.join(_SHAPE_COLUMNS)}) in {list(source.shapes)}")
    renamed = {
        old: new
        for names in source.rename.values()
        for old, new in names.items()
        if old != new
    }
    notes = [
        f"subset of rows: version {source.version}, positive finite latency; "
        + "; ".join(kept),
        f"subset of columns, renamed: {dict(source.keys)}; values renamed: {renamed}",
        f"{repeated} repeated measurements merged by the median; rows sorted by key",
        "latency converted from ms to ns and rounded to "
        f"{pack_format.SIGNIFICANT_DIGITS} significant digits (error at most 0.05 %)",
        "stored as compressed NumPy columns of small unsigned integers",
    ]
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
    frame, member_sha256 = read_member(wheel, source.member)
    selected = select_rows(frame, source)
    rows = unique_rows(selected, source)
    used = frame.loc[selected.index]
    provenance = {
        "package": source.package,
        "package_version": PACKAGE_VERSIONS[source.package],
        "wheel": wheel.name,
        "wheel_sha256": wheel.sha256,
        "member": source.member,
        "member_sha256": member_sha256,
        "licence": LICENCE,
        "framework": _strings(used, "framework"),
        "framework_version": source.version,
        "device": _strings(used, "device"),
        "kernel_source": _strings(used, "kernel_source"),
        "source_rows": len(frame),
        "rows": len(rows),
        "modified": _modified(source, len(selected) - len(rows)),
    }
    return pack_columns(rows, source), provenance


def build(core: Path, legacy: Path, out: Path) -> dict[str, Any]:
    """Write one pack per GPU and ``provenance.json`` into a folder.

    Args:
        core: wheel of aiconfigurator-core 0.12.0.
        legacy: wheel of aiconfigurator 0.10.0.
        out: existing folder; files of the same names are replaced.

    Returns:
        The content of ``provenance.json``.

    Raises:
        ConfigError: if a wheel is not the one expected, or `out` is not a folder.
    """
    if not out.is_dir():
        raise ConfigError(f"--out {out}: not a folder")
    wheels = {CORE: open_wheel(core, CORE), LEGACY: open_wheel(legacy, LEGACY)}
    packs: dict[str, bytes] = {}
    gpus: dict[str, Any] = {}
    for gpu in GPUS:
        members: dict[str, NDArray[Any]] = {}
        tables: dict[str, Any] = {}
        for source in sources(gpu):
            columns, tables[source.table] = pack_table(wheels[source.package], source)
            members.update(columns)
        content = packs[f"{gpu}.npz"] = pack_format.npz_bytes(members)
        gpus[gpu] = {
            "file": f"{gpu}.npz",
            "sha256": pack_format.sha256(content),
            "bytes": len(content),
            "tables": tables,
        }
    provenance = {"schema": pack_format.SCHEMA, "gpus": gpus}
    for name, content in packs.items():
        write_atomic(out / name, content)
    text = json.dumps(provenance, indent=1, sort_keys=True) + "\n"
    write_atomic(out / pack_format.PROVENANCE, text.encode())
    return provenance


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m calibration.build_pack",
        description="Pack the kernel timings of two public wheels.",
    )
    parser.add_argument("--core", type=Path, help="wheel of aiconfigurator-core 0.12.0")
    parser.add_argument("--legacy", type=Path, help="wheel of aiconfigurator 0.10.0")
    parser.add_argument("--download", action="store_true", help="fetch both with pip")
    parser.add_argument("--out", type=Path, default=DATA_DIR, help="output folder")
    arguments = parser.parse_args(argv)
    given = sum(path is not None for path in (arguments.core, arguments.legacy))
    if given != (0 if arguments.download else 2):
        parser.error("give either --download, or both --core and --legacy")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: build the packs, print their sizes; 0 if done, 2 on bad input."""
    arguments = _arguments(argv)
    try:
        if arguments.download:
            with tempfile.TemporaryDirectory() as folder:
                core = download(CORE, Path(folder))
                legacy = download(LEGACY, Path(folder))
                provenance = build(core, legacy, arguments.out)
        else:
            provenance = build(arguments.core, arguments.legacy, arguments.out)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for entry in provenance["gpus"].values():
        rows = sum(table["rows"] for table in entry["tables"].values())
        sys.stdout.write(f"{entry['file']}: {rows} rows, {entry['bytes']} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
