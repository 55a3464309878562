"""The commands that run many points: options and help; the work is lazily loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli_options import Jobs, Json, Overrides, Quiet, examples, out_option

# Commands import what they need when they run, so that --help stays quick.
# ruff: noqa: PLC0415

Executor = Annotated[
    str,
    typer.Option(
        metavar="WHERE",
        help="local, dask://HOST:PORT, ray or ray://HOST:PORT (extras dask, ray).",
    ),
]

studies = typer.Typer(rich_markup_mode=None)


@studies.command(
    epilog=examples(
        "servescope sweep study.toml --dry-run",
        "servescope sweep study.toml --out results   # again: goes on where it was",
        "servescope sweep study.toml --executor dask://head:8786",
        "",
        "study.toml:",
        "  config.workload.num_requests = 200",
        "  replications = 3",
        "  [[vary]]",
        '  engine.scheduler = ["chunked-prefill", "layered-prefill"]',
        "  workload.request_rate = { from = 1.0, to = 1.8, step = 0.2 }",
    )
)
def sweep(  # noqa: PLR0913, PLR0917  (options are arguments)
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="TOML or JSON file.")],
    out: Annotated[Path, out_option("servescope-sweep")] = Path("servescope-sweep"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and how long.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run failed points again.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Also write each run's own files.")
    ] = False,
    executor: Executor = "local",
    jobs: Jobs = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a configuration with many settings, in parallel; resumable.

    Any configuration key can be varied, in designs grid, list, random and
    latin-hypercube. Writes points.csv, a row per point, and each point as it finishes
    to points/KEY/point.json, where KEY is a hash of all it depends on. Exit code 1 if
    a point failed.
    """
    from sim.cli_sweep import sweep_command
    from sim.studies.study import read_study
    from sim.studies.sweep import SweepOptions, plan_sweep

    failed = sweep_command(
        plan_sweep(read_study(study, overrides or ())),
        out,
        SweepOptions(jobs, executor, retry_failed, full),
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
    )
    if failed:
        raise typer.Exit(1)
