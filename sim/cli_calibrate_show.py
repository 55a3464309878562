"""The command ``calibrate show``: where times come from, how far to believe them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pandas as pd
from rich.console import Console

from calibration.coverage_map import key_ranges, profiled_points
from calibration.engine_profiles import engine_profile, profile_names
from calibration.hardware import gpu as gpu_entry
from calibration.leave_one_out import leave_one_out
from calibration.pack_set import read_provenance
from calibration.roofline_check import (
    held_out_routing,
    roofline_fit_errors,
)
from calibration.tables import DATA_DIR, KernelTables, load_tables
from sim.calibration_tables import (
    error_matrix,
    error_table,
    evidence_table,
    pack_table,
    profile_constants,
    profile_table,
    provenance_table,
    roofline_matrix,
    roofline_table,
    routing_table,
)
from sim.cli_output import print_json, progress
from sim.files import write_csv_atomic
from sim.results import make_directory

_FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "leave_one_out": "loo.csv",
        "moe_roofline": "moe_roofline.csv",
        "held_out_routing": "held_out_routing.csv",
        "coverage": "coverage.csv",
        "points": "points.csv",
    }
)


def show_command(
    gpu: str | None, out: Path | None, *, as_json: bool, quiet: bool
) -> None:
    """Print errors of interpolation, provenance and profiles; write them if asked.

    All GPUs are summarised; one that is named is shown in full. The check on held-out
    routing refits rooflines: for a named GPU only, and where SciPy is installed.

    Args:
        gpu: Catalogue name or alias, or None.
        out: Directory for CSV files and figures, or None.
        as_json: Print one JSON document instead of tables.
        quiet: Print no tables and no progress.

    Raises:
        ConfigError: If there is no such GPU or a file cannot be written.
    """
    packs = _packs(None if gpu is None else gpu_entry(gpu).name)
    frames = _frames(packs, refit=gpu is not None, quiet=quiet)
    if out is not None:
        _write(out, frames)
    if as_json:
        print_json(_document(packs, frames))
    elif not quiet:
        _print(packs, frames, in_full=gpu is not None)


def _packs(gpu: str | None) -> list[KernelTables]:
    """The shipped packs, of one GPU or of all, vLLM's first."""
    entries = read_provenance(DATA_DIR).values()
    names = {e["gpu"] for e in entries if e["framework"] == "vllm"}
    if gpu is not None and gpu not in names:
        load_tables(gpu)  # says what there is
    chosen = [e for e in entries if gpu in (None, e["gpu"])]
    chosen.sort(key=lambda e: (e["framework"] != "vllm", e["framework"], e["gpu"]))
    return [load_tables(e["gpu"], framework=e["framework"]) for e in chosen]


def _frames(
    packs: Sequence[KernelTables], *, refit: bool, quiet: bool
) -> dict[str, pd.DataFrame]:
    checks: dict[str, Callable[[KernelTables], pd.DataFrame]] = {
        "leave_one_out": leave_one_out,
        "moe_roofline": roofline_fit_errors,
        "coverage": key_ranges,
        "points": profiled_points,
    }
    if refit:
        checks["held_out_routing"] = held_out_routing
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in checks}
    with progress("calibration", len(packs), quiet=quiet) as on_done:
        for pack in packs:
            for name, check in checks.items():
                found[name].append(check(pack))
            on_done()
    return {name: _together(parts) for name, parts in found.items()}


def _together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One frame; empty ones would change the types of columns."""
    full = [part for part in parts if len(part)]
    return pd.concat(full, ignore_index=True) if full else parts[0]


def _write(out: Path, frames: Mapping[str, pd.DataFrame]) -> None:
    """Write a CSV file per frame, and the figures."""
    from reports.calibration import coverage_figure, error_figure  # noqa: PLC0415
    from reports.figures import save_figure  # noqa: PLC0415  (matplotlib is slow)

    make_directory(out)
    for name, frame in frames.items():
        write_csv_atomic(out / _FILES[name], frame)
    for framework, errors in frames["leave_one_out"].groupby("framework"):
        save_figure(error_figure(errors), out, f"loo_{framework}")
    points = frames["points"]
    for table in points["table"].unique():
        save_figure(coverage_figure(points, table), out, f"coverage_{table}")


def _document(
    packs: Sequence[KernelTables], frames: Mapping[str, pd.DataFrame]
) -> dict[str, Any]:
    """Everything but the single points."""
    return {
        **{
            name: f.to_dict("records") for name, f in frames.items() if name != "points"
        },
        "provenance": {
            pack.pack: {"sha256": pack.sha256, "tables": dict(pack.provenance)}
            for pack in packs
        },
        "profiles": {
            name: profile_constants(engine_profile(name)) for name in profile_names()
        },
    }


def _print(
    packs: Sequence[KernelTables],
    frames: Mapping[str, pd.DataFrame],
    *,
    in_full: bool,
) -> None:
    console = Console()
    for framework, errors in frames["leave_one_out"].groupby("framework", sort=False):
        show = error_table if in_full else error_matrix
        console.print(show(errors, str(framework)))
    rooflines = roofline_table if in_full else roofline_matrix
    console.print(rooflines(frames["moe_roofline"]))
    if "held_out_routing" in frames:
        console.print(routing_table(frames["held_out_routing"]))
    if in_full:
        for pack in packs:
            console.print(provenance_table(pack))
    else:
        console.print(pack_table(packs))
    console.print(profile_table())
    console.print(evidence_table())
