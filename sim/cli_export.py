"""The command ``servescope export``."""

from __future__ import annotations

from pathlib import Path

import typer

from reports.exchange import FORMATS
from reports.html.study import read_study
from sim.config_errors import clip, one_of
from sim.errors import ConfigError
from sim.files import write_atomic


def export_command(directory: Path, name: str, out: Path | None) -> None:
    """Print a run in another tool's format, or write it to a file.

    Raises:
        ConfigError: If the format is unknown, the directory holds no single run, or
            the file cannot be written.
    """
    if name not in FORMATS:
        allowed = one_of(name, FORMATS)
        raise ConfigError(f'--format = "{clip(name)}": {allowed}')
    study = read_study([directory])
    if len(study.runs) > 1:
        runs = study.runs[0].folder.relative_to(directory)
        raise ConfigError(
            f"{directory}: holds {len(study.runs)} runs; export one of them, such as"
            f" {directory / runs}"
        )
    text = FORMATS[name](study.runs[0])
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomic(out, text.encode())
