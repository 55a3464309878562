"""A calibration set: a folder of packs and the file that says where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration import pack_format
from calibration.pack_sources import pack_name
from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.files import write_atomic
from sim.input_file import read_bytes


@dataclass(frozen=True, slots=True)
class Pack:
    """One pack before it is written.

    Attributes:
        gpu: catalogue name of the GPU.
        framework: whose kernels they are.
        content: bytes of the ``.npz`` file.
        tables: table -> where it comes from and what was modified.
    """

    gpu: str
    framework: str
    content: bytes
    tables: Mapping[str, Any]

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{pack_name(self.gpu, self.framework)}.npz"

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(int(table["rows"]) for table in self.tables.values())

    def entry(self) -> dict[str, Any]:
        """What ``provenance.json`` says about it."""
        return {
            "file": self.file,
            "gpu": self.gpu,
            "framework": self.framework,
            "sha256": pack_format.sha256(self.content),
            "bytes": len(self.content),
            "tables": dict(self.tables),
        }


def write_set(
    folder: Path,
    packs: Sequence[Pack],
    *,
    keep: bool = False,
    extra: Mapping[str, bytes] | None = None,
) -> None:
    """Write packs and then their provenance, so that a set is never half there.

    Args:
        folder: where to; made if missing.
        packs: what to write; files of the same names are replaced.
        keep: keep the other packs a set in this folder has.
        extra: other files of the set, by name.

    Raises:
        ConfigError: if a file cannot be written, or what is there is not a set.
    """
    known = keep and os.path.exists(folder / pack_format.PROVENANCE)
    entries = read_provenance(folder) if known else {}
    for pack in packs:
        entries[pack.file.removesuffix(".npz")] = pack.entry()
    document = {"schema": pack_format.SCHEMA, "packs": entries}
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    contents = {pack.file: pack.content for pack in packs} | dict(extra or {})
    for name, content in contents.items():
        write_atomic(folder / name, content)
    write_atomic(folder / pack_format.PROVENANCE, text.encode())


def read_provenance(folder: Path) -> dict[str, Any]:
    """Pack name -> entry, of the set in a folder.

    Raises:
        ConfigError: if there is no set, or its provenance is damaged.
    """
    path = folder / pack_format.PROVENANCE
    where = one_line(str(path))
    try:
        document = json.loads(read_bytes(path))
        schema, packs = document["schema"], document["packs"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = one_line(str(error))
        raise ConfigError(f"{where}: not a provenance file: {reason}") from error
    if schema != pack_format.SCHEMA:
        raise ConfigError(
            f"{where}: schema: {schema!r}; allowed: {pack_format.SCHEMA!r}"
        )
    if not isinstance(packs, dict) or not all(map(_is_entry, packs.values())):
        raise ConfigError(f"{where}: not a provenance file: damaged list of packs")
    return packs


def _is_entry(entry: object) -> bool:
    """Whether an entry has all it needs, and its file lies in the set's own folder."""
    if not isinstance(entry, dict):
        return False
    words = [entry.get(key) for key in ("file", "gpu", "framework", "sha256")]
    if not all(isinstance(word, str) and word for word in words):
        return False
    plain = Path(entry["file"]).name == entry["file"] != ".."
    tables = entry.get("tables")
    return plain and isinstance(tables, dict) and all(map(_is_table, tables.values()))


def _is_table(table: object) -> bool:
    """Whether the origin of a table is an object whose words are words."""
    return isinstance(table, dict) and all(
        isinstance(table.get(key, ""), str) for key in ("file", "framework_version")
    )
