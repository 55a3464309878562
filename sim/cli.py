"""The command ``servescope``: options and help; each command's work is lazily loaded.

Exit codes: 0, 1 when a simulation failed, 2 for bad input, 130 when interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from sim.cli_calibrate import calibrate
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
from sim.cli_studies import studies
from sim.errors import ConfigError, SimulationError
from sim.recording import Recording

# Commands import what they need when they run, so that --help stays quick.
# ruff: noqa: PLC0415

_BAD_INPUT: Final = 2
_FAILED: Final = 1

app = typer.Typer(
    name="servescope",
    help="Simulate LLM serving: chunked against layered prefill, from profiled CUDA "
    "kernel timings.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Kind(StrEnum):
    """What ``servescope list`` can list."""

    MODELS = "models"
    GPUS = "gpus"
    DATASETS = "datasets"
    SCHEDULERS = "schedulers"
    PROFILES = "profiles"
    ROUTERS = "routers"
    PLACEMENTS = "placements"
    ROUTING = "routing"


def _version(wanted: bool) -> None:
    if wanted:
        from sim.version import servescope_version

        typer.echo(f"servescope {servescope_version()}")
        raise typer.Exit


@app.callback()
def _servescope(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command(
    epilog=examples(
        "servescope compare",
        "servescope compare my.toml --rates 1.0:2.0:0.25 --out results",
        "servescope compare --rates 1.3,1.5 --profile vllm-0.24",
        "servescope compare --set model.name=Qwen/Qwen3-8B --rates 4,6",
    )
)
def compare(  # noqa: PLR0913, PLR0917  (options are arguments)
    config: ConfigFile = None,
    schedulers: Annotated[
        str, typer.Option(metavar="A,B,...", help="Policies to compare.")
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


@app.command(
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


@app.command(
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


@app.command(
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


@app.command(
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


@app.command(
    "list",
    epilog=examples("servescope list", "servescope list gpus --json"),
)
def list_names(
    kind: Annotated[
        Kind | None,
        typer.Argument(help="What to list; everything if left out."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the names that a configuration may use."""
    from sim.cli_list import list_command

    list_command(None if kind is None else kind.value, as_json=as_json)


@app.command(epilog=examples("servescope validate", "servescope validate --only lp-"))
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
    cases.csv, cases.md, summary.csv, parity.png and micro_benchmark.csv, or replay.csv.
    """
    from sim.cli_validate import replay_command, validate_command

    if replay is not None:
        replay_command(out, replay, overrides or (), as_json=as_json, quiet=quiet)
    else:
        validate_command(
            out, only=only, seeds=seeds, jobs=jobs, as_json=as_json, quiet=quiet
        )


@app.command(
    epilog=examples(
        "servescope place",
        "servescope place --gpus 32 --strategy linear,eplb,joint --redundant 32",
        "servescope place --routing STATS.json --gpus 8 --strategy exflow,lpt --json",
        "servescope place --routing OLMoE-1B-7B --domain c4 --eval-domain arxiv",
        "servescope place --routing dump.json --top-k 8 --gpus 16 --export sglang",
    )
)
def place(  # noqa: PLR0913, PLR0917  (options are arguments)
    routing: Annotated[
        str,
        typer.Option(
            metavar="FILE or MODEL",
            help="Routing statistics: JSON (num_layers, num_experts, top_k, load, "
            "transition, coactivation), SGLang or co-activation JSON, ExFlow CSV, npz, "
            "vLLM EPLB log; or a model of: servescope list routing.",
        ),
    ] = "Qwen/Qwen3-30B-A3B",
    gpus: Annotated[int, typer.Option(min=1, max=4096, help="GPUs.")] = 8,
    gpus_per_node: Annotated[
        int, typer.Option(min=1, max=4096, help="GPUs in a node.")
    ] = 8,
    strategy: Annotated[
        str,
        typer.Option(
            metavar="A,B,... or all", help="Strategies: servescope list placements."
        ),
    ] = "linear,lpt,eplb,exflow,moetuner,joint",
    eval_routing: Annotated[
        str | None,
        typer.Option(
            "--eval",
            metavar="FILE or MODEL",
            help="Judge the placements on these statistics too.",
            show_default=False,
        ),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(help="Topic of a model that has several.", show_default=False),
    ] = None,
    eval_domain: Annotated[
        str | None,
        typer.Option(help="Judge on this topic too.", show_default=False),
    ] = None,
    redundant: Annotated[
        int, typer.Option(min=0, help="Redundant experts per layer (eplb).")
    ] = 0,
    hierarchy: Annotated[
        str, typer.Option(help="auto, flat, staged (nodes, then GPUs) or bipart.")
    ] = "auto",
    solver: Annotated[
        str,
        typer.Option(help="lap: heuristics with bounds; milp: integer programs."),
    ] = "lap",
    time_limit: Annotated[
        float, typer.Option(min=0.1, max=86400, help="Seconds of an integer program.")
    ] = 60.0,
    max_par: Annotated[
        float, typer.Option(min=1.0, max=100, help="Max/mean load of joint.")
    ] = 1.05,
    dispatch: Annotated[
        str,
        typer.Option(help="Copy of a replicated expert: static, random, least_loaded."),
    ] = "random",
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Experts per token, where FILE does not say.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model of a log, and for bytes.", show_default=False),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Write placements for sglang, vllm.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of presets and strategies.")] = 0,
    out: Annotated[
        Path | None, out_option("servescope-place, none with --json")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Place experts on GPUs by several strategies and compare them.

    Prints affinity, balance, crossing shares, bound and gap of each; writes place.csv,
    place.json, loads.csv.gz, figures as PNG and SVG, and exports.
    """
    from sim.cli_place import PlaceArguments, place_command

    place_command(
        PlaceArguments(
            routing=routing,
            gpus=gpus,
            gpus_per_node=gpus_per_node,
            strategy=strategy,
            eval_routing=eval_routing,
            domain=domain,
            eval_domain=eval_domain,
            redundant_experts=redundant,
            hierarchy=hierarchy,
            solver=solver,
            time_limit_s=time_limit,
            max_par=max_par,
            dispatch=dispatch,
            top_k=top_k,
            model=model,
            export=export,
            seed=seed,
        ),
        Path("servescope-place") if out is None and not as_json else out,
        as_json=as_json,
        quiet=quiet,
    )


app.add_typer(calibrate, name="calibrate")
app.add_typer(studies)


@app.command(epilog=examples("servescope schema > servescope.schema.json"))
def schema() -> None:
    """Print the JSON Schema of a configuration file."""
    from sim.cli_list import schema_command

    schema_command()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; every expected error is one line on stderr.

    Args:
        arguments: Words after the command's name; None for those of this process.
    """
    try:
        app(arguments, prog_name="servescope")
    except ConfigError as error:
        _fail(error, _BAD_INPUT)
    except (SimulationError, OSError) as error:
        _fail(error, _FAILED)
    sys.exit(0)


def _fail(error: Exception, code: int) -> NoReturn:
    typer.echo(f"error: {' '.join(str(error).split())}", err=True)
    sys.exit(code)
