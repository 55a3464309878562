"""The commands that run many points: options and help; the work is lazily loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli_options import (
    ConfigFile,
    Jobs,
    Json,
    Overrides,
    Quiet,
    examples,
    out_option,
)

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


@studies.command(
    epilog=examples(
        "servescope capacity --set engine.scheduler=chunked-prefill",
        "servescope capacity my.toml --attainment 0.95",
        "servescope capacity my.toml --limit p99_ttft_ms=2000 --limit p99_itl_ms=50",
        "servescope capacity my.toml --min-replicas --set workload.request_rate=20",
    )
)
def capacity(  # noqa: PLR0913, PLR0917  (options are arguments)
    config: ConfigFile = None,
    out: Annotated[Path, out_option("servescope-capacity")] = Path(
        "servescope-capacity"
    ),
    attainment: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1.0,
            help="Share of requests within [slo]; default: 0.9, without --limit.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=MAX",
            help="Largest value of a key of result.json; may be repeated.",
            show_default=False,
        ),
    ] = None,
    min_replicas: Annotated[
        bool,
        typer.Option(
            "--min-replicas",
            help="Search the fewest replicas for the configured load instead.",
        ),
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option(min=0.001, max=0.5, help="Of the rate, and of its interval."),
    ] = 0.02,
    max_seeds: Annotated[
        int, typer.Option(min=2, max=100, help="The most replications.")
    ] = 9,
    executor: Executor = "local",
    jobs: Jobs = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the highest request rate, or the fewest replicas, that meet SLOs.

    The rate comes with a 95 % interval over seeds, which are added until it is within
    the tolerance; cost and energy are those of the highest rate that was met. Writes
    capacity.csv and evaluations.csv; the same command goes on where it stopped.
    """
    from sim.build import check_registered
    from sim.cli_capacity import capacity_command, min_replicas_command
    from sim.config_file import load_config
    from sim.studies.capacity import Search
    from sim.studies.target import parse_target

    command = min_replicas_command if min_replicas else capacity_command
    command(
        load_config(config, overrides or (), check=check_registered),
        parse_target(attainment, limit or ()),
        out,
        Search(tolerance, max_seeds, jobs, executor),
        as_json=as_json,
        quiet=quiet,
    )


@studies.command(
    epilog=examples(
        "servescope pareto servescope-sweep",
        "servescope pareto points.csv --metrics ttft,tbt --baseline chunked-prefill",
        "servescope pareto results --metrics energy,tbt,goodput --by gpu",
        "servescope pareto results --metrics p90_ttft_ms:min,output_throughput:max",
    )
)
def pareto(
    points: Annotated[
        Path,
        typer.Argument(metavar="POINTS", help="Folder of a sweep, or its points.csv."),
    ] = Path("servescope-sweep"),
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y[,Z]",
            help="Two or three of ttft, p99_ttft, tbt, tpot, e2e, energy, cost, "
            "goodput, slo, user_speed, gpu_speed, gpus, or COLUMN:min, COLUMN:max; may "
            "be repeated; default: the four standard figures.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="COLUMN", help="What groups points.")
    ] = "scheduler",
    baseline: Annotated[
        str | None,
        typer.Option(help="Group to compare with; default: the first."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Default: the folder of the points."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find what no other setting beats, and how far frontiers lie apart.

    Seeds are averaged; points whose queue grew without end do not count. Writes, per
    set of metrics, pareto-NAME.csv and figures as PNG and SVG, and pareto-shift.csv.
    """
    from sim.cli_pareto import pareto_command, parse_metrics

    pareto_command(
        points,
        out,
        parse_metrics(metrics),
        by=by,
        baseline=baseline,
        as_json=as_json,
        quiet=quiet,
    )


@studies.command(
    epilog=examples(
        "servescope optimise space.toml --metrics ttft,tbt --trials 200",
        "",
        "space.toml:",
        "  config.workload.num_requests = 200",
        "  [[vary]]",
        '  engine.scheduler = ["chunked-prefill", "layered-prefill"]',
        '  engine.max_num_batched_tokens = { from = 256, to = 8192, scale = "log" }',
        "  engine.num_layer_groups = { from = 2, to = 32 }",
    )
)
def optimise(  # noqa: PLR0913, PLR0917  (options are arguments)
    study: Annotated[
        Path, typer.Argument(metavar="SPACE", help="TOML or JSON file, one [[vary]].")
    ],
    metrics: Annotated[
        str,
        typer.Option(metavar="X[,Y[,Z]]", help="As in servescope pareto."),
    ] = "ttft,tbt",
    trials: Annotated[int, typer.Option(min=1, max=100_000, help="Points.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the optimiser.")] = 0,
    out: Annotated[Path, out_option("servescope-optimise")] = Path(
        "servescope-optimise"
    ),
    executor: Executor = "local",
    jobs: Jobs = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search a large space for the best trade-offs (extra servescope[optimise]).

    Optuna's TPE proposes points; the same command goes on where it stopped. Writes
    what sweep and pareto write.
    """
    from sim.cli_optimise import optimise_command
    from sim.studies.optimise import Optimisation
    from sim.studies.study import read_space
    from sim.studies.sweep import SweepOptions

    optimise_command(
        read_space(study, overrides or ()),
        out,
        Optimisation(
            tuple(name.strip() for name in metrics.split(",")),
            trials,
            seed,
            SweepOptions(jobs, executor),
        ),
        as_json=as_json,
        quiet=quiet,
    )
