"""The command ``servescope``: options and help; each command's work is lazily loaded.

Exit codes: 0, 1 when a simulation failed, 2 for bad input, 130 when interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from sim.errors import ConfigError, SimulationError

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


ConfigFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="CONFIG",
        help="TOML or JSON file; every key has a default (see: servescope schema).",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a configuration key, over the file; may be repeated.",
        show_default=False,
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Engine profile; default: calibration.profile where it is set, else "
        "layered-prefill-v1.",
        show_default=False,
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Processes; default: one per core.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no notes or tables.")]
Iterations = Annotated[
    bool, typer.Option("--iterations", help="Also write iterations.csv.gz.")
]


def _out(default: str) -> Any:
    """The option --out; Any, as typer.Option itself is typed."""
    return typer.Option(
        "--out",
        metavar="DIR",
        help="Directory for the results; files of earlier ones are overwritten. "
        f"[default: {default}]",
        show_default=False,
    )


def _examples(*lines: str) -> str:
    """Help text whose lines stay apart."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


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
    epilog=_examples(
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
    out: Annotated[Path, _out("servescope-compare")] = Path("servescope-compare"),
    jobs: Jobs = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
    iterations: Iterations = False,
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
        plan, out, jobs=jobs, as_json=as_json, quiet=quiet, iterations=iterations
    )


@app.command(
    epilog=_examples(
        "servescope run",
        "servescope run my.toml --out results --iterations",
        "servescope run --set engine.scheduler=orca --set workload.request_rate=1.5",
    )
)
def run(
    config: ConfigFile = None,
    out: Annotated[Path, _out("servescope-run")] = Path("servescope-run"),
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
    iterations: Iterations = False,
) -> None:
    """Simulate one configuration.

    Writes result.json (the keys of vllm bench serve, and energy, traffic and cost),
    config.toml, requests.csv.gz and timeseries.csv.gz.
    """
    from sim.build import check_registered
    from sim.cli_run import run_command
    from sim.config_file import load_config

    loaded = load_config(config, overrides or (), check=check_registered)
    run_command(loaded, out, as_json=as_json, quiet=quiet, iterations=iterations)


@app.command(
    "list",
    epilog=_examples("servescope list", "servescope list gpus --json"),
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


@app.command(epilog=_examples("servescope validate", "servescope validate --only lp-"))
def validate(
    out: Annotated[Path, _out("servescope-validate")] = Path("servescope-validate"),
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


calibrate = typer.Typer(
    help="Where times come from.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(calibrate, name="calibrate")


@calibrate.callback()
def _calibrate() -> None:
    pass


@calibrate.command(epilog=_examples("servescope calibrate fit"))
def fit(as_json: Json = False) -> None:
    """Fit the layered-prefill profiles again; print shipped and fitted constants.

    Uses the micro-benchmark and iteration times in calibration/data/measured.toml,
    no end-to-end latency. Needs the extra servescope[pack].
    """
    from sim.cli_validate import fit_command

    fit_command(as_json=as_json)


@calibrate.command(
    "import",
    epilog=_examples(
        "servescope calibrate import aiconfigurator_core-0.12.0.whl --gpu l40s",
        "servescope calibrate import --installed --gpu h200 --backend sglang",
        "servescope calibrate import servescope-profile/kernels.csv --gpu h100",
        "servescope run --set calibration.data_dir=servescope-calibration",
    ),
)
def import_tables(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Wheel of aiconfigurator-core, or a CSV file of kernel timings.",
            show_default=False,
        ),
    ] = None,
    installed: Annotated[
        bool, typer.Option("--installed", help="Read the installed package instead.")
    ] = False,
    gpu: Annotated[str, typer.Option(metavar="NAME", help="Which GPU.")] = "h100_sxm",
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="vllm, sglang or trtllm.")
    ] = "vllm",
    version: Annotated[
        str | None,
        typer.Option(help="Of the backend; default: the newest.", show_default=False),
    ] = None,
    out: Annotated[Path, _out("servescope-calibration")] = Path(
        "servescope-calibration"
    ),
    all_shapes: Annotated[
        bool, typer.Option("--all-shapes", help="Not only the catalogue's shapes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import kernel timings into a folder that calibration.data_dir can name.

    Needs the extra servescope[pack] for wheels.
    """
    from sim.cli_import import import_command

    import_command(
        source,
        installed=installed,
        gpu_name=gpu,
        backend=backend,
        version=version,
        out=out,
        all_shapes=all_shapes,
        as_json=as_json,
    )


@calibrate.command(
    epilog=_examples(
        "servescope calibrate show",
        "servescope calibrate show --gpu h100 --out calibration-report",
    )
)
def show(
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Show one GPU in full; default: a summary of all.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Also write CSV files and figures here.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show leave-one-out errors, coverage, provenance and engine profiles."""
    from sim.cli_calibrate_show import show_command

    show_command(gpu, out, as_json=as_json, quiet=quiet)


@calibrate.command(
    epilog=_examples(
        "servescope calibrate profile --model Qwen/Qwen3-30B-A3B",
        "torchrun --nproc-per-node 2 --no-python servescope calibrate profile --tp 2",
    )
)
def profile(  # noqa: PLR0913, PLR0917  (options are arguments)
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Model or path of a config.json; may be repeated.",
            show_default=False,
        ),
    ] = None,
    tp: Annotated[int, typer.Option(min=1, help="Tensor-parallel size.")] = 1,
    ep: Annotated[
        int, typer.Option(min=1, help="Expert-parallel size: 1 or --tp.")
    ] = 1,
    budget_s: Annotated[
        float, typer.Option(min=1, help="Estimated seconds the grid may take.")
    ] = 3600,
    out: Annotated[Path, _out("servescope-profile")] = Path("servescope-profile"),
    seed: Annotated[int, typer.Option(min=0, help="Of the kernels' input values.")] = 0,
    energy: Annotated[
        bool, typer.Option(help="Also measure energy, 5 s per kernel.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time kernels on this machine's GPU; the same command goes on where it stopped.

    Needs a CUDA GPU and the extra servescope[profile].
    """
    from calibration.profiler.grid import Split
    from sim.cli_profile import new_session, profile_command

    session = new_session(out, date=date.today().isoformat(), seed=seed, energy=energy)
    profile_command(
        session,
        models or ["Qwen/Qwen3-30B-A3B"],
        Split(tp, ep),
        budget_s=budget_s,
        as_json=as_json,
        quiet=quiet,
    )


@app.command(epilog=_examples("servescope schema > servescope.schema.json"))
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
