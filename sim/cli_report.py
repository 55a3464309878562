"""The command ``servescope report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from reports.html.page import write_page
from reports.html.study import read_study
from sim.cli_output import print_json

PAGE_FILE: Final = "report.html"


def report_command(
    directories: Sequence[Path], out: Path | None, *, as_json: bool, quiet: bool
) -> None:
    """Write the page of some results, by default beside the first of them.

    Raises:
        ConfigError: If a directory holds no results, a file is malformed, or the page
            cannot be written.
    """
    study = read_study(directories)
    path = out or directories[0] / PAGE_FILE
    write_page(study, path)
    if as_json:
        size = path.stat().st_size
        print_json({"report": str(path), "runs": len(study.runs), "bytes": size})
    elif not quiet:
        typer.echo(f"written: {path} (one file, works offline)")
