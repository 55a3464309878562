"""The commands that simulate; each one's work is lazily loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli_options import (
    Check,
    ConfigFile,
    Iterations,
    Jobs,
    Json,
    Overrides,
    Profile,
    Quiet,
    examples,
    out_option,
)
from sim.recording import Recording

# Commands import what they need when they run, so that --help stays quick.
# ruff: noqa: PLC0415

simulations = typer.Typer(rich_markup_mode=None)


@simulations.command(
    epilog=examples(
        "servescope compare",
        "servescope compare my.toml --rates 1.0:2.0:0.25 --out results",
        "servescope compare --rates 1.3,1.5 --profile vllm-0.24",
        "servescope compare --set model.name=Qwen/Qwen3-8B --rates 4,6",
        "servescope compare two.toml --schedulers layered-prefill,orca+sjf,1p1d",
    )
)
def compare(  # noqa: PLR0913, PLR0917  (options are arguments)
    config: ConfigFile = None,
    schedulers: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="Policies to compare: SCHEDULER[+QUEUE][@xPyD], such as orca, "
            "layered-prefill+sjf, or 1p3d for 1 prefill and 3 decode replicas.",
        ),
    ] = "chunked-prefill,layered-prefill",
    rates: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:LAST:STEP or A,B,...",
            help="Requests per second; default: workload.request_rate where it is "
            "set, else 1.0:1.8:0.1.",
            show_default=False,
        ),
    ] = None,
    profile: Profile = None,
    out: Annotated[Path, out_option("servescope-compare")] = Path("servescope-compare"),
    jobs: Jobs = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
    iterations: Iterations = False,
    check: Check = False,
) -> None:
    """Compare scheduling policies on the same requests, at several request rates.

    Writes compare.csv, paired.csv (per-request differences with 95 % intervals),
    tradeoff.csv (TTFT against TBT over chunk sizes and layer groups, at one rate),
    figures as PNG and SVG, and each run's files in SCHEDULER/rate-R/ and
    SCHEDULER/tradeoff/. A
    max_num_batched_tokens that is set holds for all policies; unset, each has its own.
    """
    from sim.cli_compare import compare_command, parse_names, parse_rates
    from sim.compare import plan_points

    plan = plan_points(
        config,
        overrides or (),
        schedulers=parse_names(schedulers),
        rates=None if rates is None else parse_rates(rates),
        profile=profile,
    )
    compare_command(
        plan,
        out,
        jobs=jobs,
        as_json=as_json,
        quiet=quiet,
        iterations=iterations,
        check=check,
    )


@simulations.command(
    epilog=examples(
        "servescope run",
        "servescope run my.toml --out results --iterations --trace",
        "servescope run my.toml --check",
        "servescope run --set engine.scheduler=orca --set workload.request_rate=1.5",
    )
)
def run(  # noqa: PLR0913, PLR0917  (one a flag)
    config: ConfigFile = None,
    out: Annotated[Path, out_option("servescope-run")] = Path("servescope-run"),
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
    iterations: Iterations = False,
    check: Check = False,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace",
            help="Also write trace.json.gz: iterations, layers, kernels, requests and "
            "counters for ui.perfetto.dev.",
        ),
    ] = False,
    record: Annotated[
        Recording,
        typer.Option(
            "--record",
            help="How much to keep. 'requests' leaves out timeseries.csv.gz and "
            "steps.csv.gz and bounds memory for millions of requests, 'summary' also "
            "leaves out requests.csv.gz; the numbers are the same.",
        ),
    ] = Recording.ITERATIONS,
) -> None:
    """Simulate one configuration.

    Writes result.json (the keys of vllm bench serve, and energy, traffic and cost),
    config.toml, requests.csv.gz, timeseries.csv.gz and steps.csv.gz (ten seconds of
    iterations in detail). A run that breaks an invariant leaves failed.toml and prints
    the command that replays it.
    """
    from sim.build import check_registered
    from sim.cli_run import run_command
    from sim.config_file import load_config

    loaded = load_config(config, overrides or (), check=check_registered)
    run_command(
        loaded,
        out,
        as_json=as_json,
        quiet=quiet,
        iterations=iterations,
        check=check,
        trace=trace,
        recording=record,
    )


@simulations.command(
    epilog=examples(
        "servescope explore",
        "servescope explore my.toml --port 5006",
        "servescope explore --set calibration.profile=layered-prefill-v1",
    )
)
def explore(
    config: ConfigFile = None,
    overrides: Overrides = None,
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 for any that is free."),
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Serve a what-if page on this machine: sliders, chunked beside layered prefill.

    Every move of a slider simulates both policies again. Nothing is written, nobody
    but this machine is answered; Ctrl-C ends it.
    """
    from sim.cli_explore import explore_command

    explore_command(config, overrides or (), port=port, show=browser)


@simulations.command(
    epilog=examples("servescope validate", "servescope validate --only lp-")
)
def validate(
    out: Annotated[Path, out_option("servescope-validate")] = Path(
        "servescope-validate"
    ),
    only: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Cases by name.", show_default=False),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            help="Runs of each case, by seed; default: 5 of an open loop, else 1.",
            show_default=False,
        ),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Replay a per-request log of a real run instead.",
            show_default=False,
        ),
    ] = None,
    jobs: Jobs = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict measured cases and print signed errors.

    Every case is simulated by its real protocol; cases that some constant has seen
    (calibration) and held-out ones (validation) are never averaged together. Writes
    cases.csv, cases.md, summary.csv, parity.png and micro_benchmark.csv, or replay.csv
    and replay_summary.csv.
    """
    from sim.cli_validate import replay_command, validate_command

    if replay is not None:
        replay_command(out, replay, overrides or (), as_json=as_json, quiet=quiet)
    else:
        validate_command(
            out, only=only, seeds=seeds, jobs=jobs, as_json=as_json, quiet=quiet
        )
