"""The commands that read the results of others; each one's work is lazily loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli_options import (
    Json,
    Quiet,
    examples,
)

# Commands import what they need when they run, so that --help stays quick.
# ruff: noqa: PLC0415

results = typer.Typer(rich_markup_mode=None)


@results.command(
    epilog=examples(
        "servescope report servescope-compare",
        "servescope report run-a run-b --out both.html",
    )
)
def report(
    directories: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="One directory of servescope compare, sweep or capacity, or any "
            "number of servescope run; with or without one of servescope place.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The page. [default: report.html in the first DIR]",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one HTML page of results: what was gained, what it cost, how sure it is.

    The page needs no network and no other file: charts to hover, zoom, filter and pin,
    the numbers behind them, measured errors of the model and where all of it comes
    from.
    """
    from sim.cli_report import report_command

    report_command(directories, out, as_json=as_json, quiet=quiet)


@results.command(
    epilog=examples(
        "servescope export servescope-run --format vllm-bench > bench.json",
        "servescope export servescope-run --format inferencex",
        "servescope export servescope-run --format openmetrics --out metrics.txt",
    )
)
def export(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory of one run.")
    ],
    name: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="vllm-bench (vllm bench serve --save-detailed), inferencex (its "
            "aggregate row) or openmetrics (time series, vLLM's metric names).",
        ),
    ] = "vllm-bench",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file; default: print it."),
    ] = None,
) -> None:
    """Print a run in the format of another tool, for scripts made for it."""
    from sim.cli_export import export_command

    export_command(directory, name, out)
