"""The commands below ``servescope calibrate``; each one's work is lazily loaded."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from sim.cli_options import ConfigFile, Json, Overrides, Quiet, examples, out_option

# Commands import what they need when they run, so that --help stays quick.
# ruff: noqa: PLC0415

calibrate = typer.Typer(
    help="Where times come from.", no_args_is_help=True, rich_markup_mode=None
)


@calibrate.callback()
def _calibrate() -> None:
    pass


@calibrate.command(epilog=examples("servescope calibrate fit"))
def fit(as_json: Json = False) -> None:
    """Fit the layered-prefill profiles again; print shipped and fitted constants.

    Uses the micro-benchmark and iteration times in calibration/data/measured.toml,
    no end-to-end latency.
    """
    from sim.cli_validate import fit_command

    fit_command(as_json=as_json)


@calibrate.command(
    "import",
    epilog=examples(
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
    out: Annotated[Path, out_option("servescope-calibration")] = Path(
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
    epilog=examples(
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
    epilog=examples(
        "servescope calibrate links",
        "servescope calibrate links --gpu h100 --out links-report",
    )
)
def links(
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="One GPU only.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Also write every compared row, links.csv, here.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare collectives simulated as flows on links with the profiled ones.

    Ring, tree and pairwise algorithms in NCCL's protocols, and vLLM's own all-reduce;
    their constants are NCCL's own, none is fitted to the tables.
    """
    from sim.cli_links import links_command

    links_command(gpu, out, as_json=as_json, quiet=quiet)


@calibrate.command(
    epilog=examples(
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
    out: Annotated[Path, out_option("servescope-profile")] = Path("servescope-profile"),
    seed: Annotated[int, typer.Option(min=0, help="Of the kernels' input values.")] = 0,
    energy: Annotated[
        bool, typer.Option(help="Also measure energy, 5 s per kernel.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time kernels on this machine's GPU; the same command goes on where it stopped.

    Times are the kernels' own where CUPTI traces them, else those of CUDA events; the
    table says which, and has both.

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


@calibrate.command(
    epilog=examples(
        "servescope calibrate anchor steps.csv my.toml --out my-engine.toml",
        "servescope run my.toml --set calibration.profile=my-engine.toml",
    )
)
def anchor(
    measurements: Annotated[
        Path,
        typer.Argument(
            help="CSV: decoding, context_tokens, prefill_tokens, prefix_tokens, "
            "measured_ms; one measured iteration a row, three or more."
        ),
    ],
    config: ConfigFile = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The profile to write.")
    ] = Path("anchored.toml"),
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit two bounded factors of a profile to your own measured iterations.

    A factor on all kernels and one on all host times; every step is shown before and
    after, and so is the leave-one-out error.
    """
    from sim.build import check_registered
    from sim.cli_anchor import anchor_command
    from sim.config_file import load_config

    loaded = load_config(config, overrides or (), check=check_registered)
    anchor_command(loaded, measurements, out, as_json=as_json, quiet=quiet)
