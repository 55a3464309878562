"""The command that places experts; its work is lazily loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli_options import (
    Json,
    Quiet,
    examples,
    out_option,
)

# Commands import what they need when they run, so that --help stays quick.
# ruff: noqa: PLC0415

placements = typer.Typer(rich_markup_mode=None)


@placements.command(
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
