"""The command ``servescope report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from reports.html.page import write_page
from reports.html.points import Points, is_points, read_points
from reports.html.study import Study, read_study
from sim.cli_output import print_json

PAGE_FILE: Final = "report.html"


def read_results(directories: Sequence[Path]) -> Study | Points:
    """Whatever the directories hold.

    Raises:
        ConfigError: If they hold no results, or a file is malformed.
    """
    if len(directories) == 1 and is_points(directories[0]):
        return read_points(directories[0])
    return read_study(directories)


def report_command(
    directories: Sequence[Path], out: Path | None, *, as_json: bool, quiet: bool
) -> None:
    """Write the page of some results, by default beside the first of them.

    Raises:
        ConfigError: If a directory holds no results, a file is malformed, or the page
            cannot be written.
    """
    study = read_results(directories)
    path = out or directories[0] / PAGE_FILE
    write_page(study, path)
    if as_json:
        size = path.stat().st_size
        print_json(
            {
                "report": str(path),
                "runs": len(study.points if isinstance(study, Points) else study.runs),
                "bytes": size,
            }
        )
    elif not quiet:
        typer.echo(f"written: {path} (one file, works offline)")
