"""The command ``servescope report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from reports.html.page import write_page
from reports.html.placements import Placements, is_placements, read_placements
from reports.html.points import Points, is_points, read_points
from reports.html.study import Study, read_study
from sim.cli_output import print_json
from sim.errors import ConfigError

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
    placed = [path for path in directories if is_placements(path)]
    if len(placed) > 1:
        raise ConfigError("report: at most one directory of servescope place")
    placements = read_placements(placed[0]) if placed else None
    others = [path for path in directories if path not in placed]
    study = read_results(others) if others or placements is None else placements
    path = out or directories[0] / PAGE_FILE
    write_page(study, path, placements)
    if as_json:
        size = path.stat().st_size
        print_json(
            {
                "report": str(path),
                "runs": _runs(study),
                "bytes": size,
            }
        )
    elif not quiet:
        typer.echo(f"written: {path} (one file, works offline)")


def _runs(study: Study | Points | Placements) -> int:
    match study:
        case Placements():
            return 0
        case Points():
            return len(study.points)
        case Study():
            return len(study.runs)
