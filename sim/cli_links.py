"""The command ``calibrate links``: collectives over simulated links beside measured."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Final

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from calibration.collective_check import check_collectives
from calibration.hardware import gpu as gpu_entry
from calibration.hardware import gpu_names
from calibration.tables import load_tables
from sim.cli_output import print_json, progress, records
from sim.files import write_csv_atomic
from sim.results import make_directory

LINKS_FILE: Final = "links.csv"
_BANDS: Final = (("small", 1 << 16), ("middle", 8 << 20), ("large", 1 << 62))
"""Largest message of each: where latency counts, vLLM's own all-reduce, bandwidth."""


def links_command(
    gpu: str | None, out: Path | None, *, as_json: bool, quiet: bool
) -> None:
    """Print the error of every collective on every GPU; write all rows if asked.

    Raises:
        ConfigError: If there is no such GPU or a file cannot be written.
    """
    names = gpu_names() if gpu is None else (gpu_entry(gpu).name,)
    rows = []
    with progress("GPUs", len(names), quiet=quiet) as on_done:
        for name in names:
            rows += [asdict(row) for row in check_collectives(load_tables(name))]
            on_done()
    checked = pd.DataFrame(rows)
    checked["error"] = checked["predicted_ns"] / checked["measured_ns"] - 1
    summary = link_errors(checked)
    if out is not None:
        make_directory(out)
        write_csv_atomic(out / LINKS_FILE, checked)
    if as_json:
        print_json({"links": records(summary)})
    elif not quiet:
        console = Console()
        console.print(_table(summary))
        console.print(
            "Nothing of the links is fitted to these tables; inside the range of a"
            " table a run uses the table.\nsmall: up to 64 KiB; middle: up to 8 MiB."
        )


def link_errors(checked: pd.DataFrame) -> pd.DataFrame:
    """Errors by GPU and collective.

    Args:
        checked: Columns gpu, collective, message_bytes and error.

    Returns:
        One row each: ``gpu``, ``collective``, number ``n``, ``mape``, ``bias``, and the
        bias of small, middle and large messages.
    """
    rows = []
    for (name, collective), group in checked.groupby(["gpu", "collective"], sort=False):
        errors, sizes = group["error"], group["message_bytes"]
        bands, low = {}, 0
        for band, high in _BANDS:
            bands[band] = errors[(sizes > low) & (sizes <= high)].mean()
            low = high
        rows.append(
            {
                "gpu": name,
                "collective": collective,
                "n": len(group),
                "mape": errors.abs().mean(),
                "bias": errors.mean(),
                **bands,
            }
        )
    return pd.DataFrame(rows)


def _table(summary: pd.DataFrame) -> Table:
    table = Table(
        title="Collectives as flows on links, against profiled ones (%)",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("GPU")
    table.add_column("collective")
    for name in ("n", "MAPE", "bias", *(band for band, _ in _BANDS)):
        table.add_column(name, justify="right")
    before = None
    for row in records(summary):
        shown = "" if row["gpu"] == before else row["gpu"]
        before = row["gpu"]
        signed = (row["bias"], *(row[band] for band, _ in _BANDS))
        table.add_row(
            shown,
            row["collective"],
            str(row["n"]),
            f"{100 * row['mape']:.1f}",
            *(f"{100 * value:+.1f}" for value in signed),
        )
    return table
