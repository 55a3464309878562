"""The command ``servescope pareto``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from reports.frontier import Frontiers, front_frame, shift_frame
from reports.pareto_report import STANDARD, pareto_sets, write_pareto
from reports.points import read_points
from reports.terminal_plot import frontier_text
from sim.cli_output import print_json, records
from sim.errors import ConfigError
from sim.results import make_directory


def parse_metrics(texts: list[str] | None) -> tuple[tuple[str, ...], ...]:
    """Sets of metrics from "A,B" or "A,B,C" texts; the standard ones without any.

    Raises:
        ConfigError: If a text has not two or three names.
    """
    if not texts:
        return STANDARD
    sets = tuple(tuple(name.strip() for name in text.split(",")) for text in texts)
    for names, text in zip(sets, texts, strict=True):
        if len(names) not in (2, 3):
            raise ConfigError(f'--metrics "{text}": must be two or three, with commas')
    return sets


def pareto_command(
    points: Path,
    out: Path | None,
    metrics: tuple[tuple[str, ...], ...],
    *,
    by: str,
    baseline: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find frontiers, write tables and figures, and print the first as a plot.

    Raises:
        ConfigError: If the table, a metric or a group is not there.
    """
    sets = pareto_sets(read_points(points), metrics, by=by)
    folder = out or (points if points.is_dir() else points.parent)
    make_directory(folder)
    write_pareto(sets, folder, baseline)
    if as_json:
        print_json([_document(name, found, baseline) for name, found in sets])
    elif not quiet:
        console = Console()
        typer.echo("\n".join(frontier_text(sets[0][1])))
        for name, found in sets:
            console.print(shift_table(name, found, baseline))
        typer.echo(f"written: {folder}")


def shift_table(name: str, found: Frontiers, baseline: str | None) -> Table:
    """How far frontiers lie from the baseline's."""
    frame = shift_frame(found, baseline or found.names[0])
    against = baseline or found.names[0]
    table = Table(
        title=f"{name.replace('-', ' / ')}, against {against}",
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1),
    )
    table.add_column("group", overflow="fold")
    names = ["points", "on front", "hyper-\nvolume %", "change\n%"]
    names += ["y at equal\nx, %", "x at equal\ny, %"] if len(frame.columns) > 5 else []
    for heading in names:
        table.add_column(heading, justify="right")
    for row in records(frame):
        group, count, front, *numbers = row.values()
        cells = ["-" if v is None else f"{v:+.1f}" for v in numbers[1:]]
        table.add_row(
            str(group).removesuffix("-prefill"),
            str(count),
            str(front),
            f"{numbers[0]:.1f}",
            *cells,
        )
    return table


def _document(name: str, found: Frontiers, baseline: str | None) -> dict[str, Any]:
    front = front_frame(found)
    shift = shift_frame(found, baseline or found.names[0])
    return {
        "metrics": name,
        "shift": records(shift),
        "joint_front": records(front[front["on_joint_front"]]),
    }
