"""``servescope calibrate import``: kernel timings from a wheel or the user's CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.table import Column, Table

from calibration.hardware import gpu, gpu_aliases, gpu_names
from calibration.import_csv import import_csv
from calibration.import_wheel import Imported, import_wheel
from calibration.lookup import unknown_name
from calibration.pack_set import Pack, write_set
from calibration.pack_sources import FRAMEWORKS
from calibration.roofline_set import ROOFLINES, set_rooflines
from calibration.table_source import CORE
from calibration.tables import KernelTables
from calibration.wheels import installed_wheel, open_wheel
from sim.cli_output import print_json
from sim.errors import ConfigError

_CSV: Final = ".csv"


def import_command(
    source: Path | None,
    *,
    installed: bool,
    gpu_name: str,
    backend: str,
    version: str | None,
    out: Path,
    all_shapes: bool,
    as_json: bool,
) -> None:
    """Import kernel timings into a calibration set and say what came of it.

    Args:
        source: a wheel of aiconfigurator-core, or a CSV file in the schema of
            `calibration.profiler.schema`.
        installed: read the installed aiconfigurator-core instead.
        gpu_name: catalogue name or alias, or another GPU of the wheel.
        backend: framework whose kernels they are.
        version: of the framework; None for the newest. Wheels only.
        out: folder of the set; other packs in it stay.
        all_shapes: keep every shape of a wheel, not the catalogue's only.
        as_json: print one JSON document.

    Raises:
        ConfigError: One line, if the input is bad; nothing is written then.
    """
    if (source is None) != installed:
        raise ConfigError("give either the path of a wheel or CSV file, or --installed")
    name = gpu(gpu_name).name if _is_known(gpu_name) else gpu_name
    if backend not in FRAMEWORKS:
        raise unknown_name("backend", backend, FRAMEWORKS)
    if source is not None and source.suffix.casefold() == _CSV:
        imported = _from_csv(source, name, backend, version)
    else:
        wheel = installed_wheel(CORE) if source is None else open_wheel(source, CORE)
        imported = import_wheel(wheel, name, backend, version, everything=all_shapes)
    pack = imported.pack
    extra, notes = _rooflines(pack, out)
    write_set(out, [pack], keep=True, extra=extra)
    _report(pack, out, (*imported.notes, *notes), as_json=as_json)


def _from_csv(source: Path, name: str, backend: str, version: str | None) -> Imported:
    if version is not None:
        raise ConfigError("--version: for wheels only; a CSV file has one version")
    if not _is_known(name):
        raise unknown_name("GPU", name, gpu_names())
    return Imported(import_csv(source, name, backend), ())


def _is_known(name: str) -> bool:
    wanted = name.strip().casefold().replace("-", "_").replace(" ", "_")
    return wanted in {*gpu_names(), *gpu_aliases()}


def _rooflines(pack: Pack, out: Path) -> tuple[dict[str, bytes], tuple[str, ...]]:
    if not _is_known(pack.gpu):
        return {}, (f"{pack.gpu} is not in the hardware catalogue: cannot be run yet",)
    tables = KernelTables(pack.gpu, pack.framework, pack.content, pack.tables, out)
    content, words = set_rooflines(tables)
    return {ROOFLINES: content} if content else {}, (words,)


def _report(pack: Pack, out: Path, notes: tuple[str, ...], *, as_json: bool) -> None:
    path = str(out / pack.file)
    rows = {name: int(entry["rows"]) for name, entry in pack.tables.items()}
    if as_json:
        document: dict[str, Any] = {"file": path, "bytes": len(pack.content)}
        print_json({**document, "rows": rows, "notes": list(notes)})
        return
    typer.echo(path)
    table = Table("table", Column("rows", justify="right"))
    for name, count in rows.items():
        table.add_row(name, str(count))
    Console().print(table)
    for note in (*notes, f'use it with: --set calibration.data_dir="{out}"'):
        typer.echo(note, err=True)
