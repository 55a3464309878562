"""The commands that say what may be configured; their work is lazily loaded."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from sim.cli_options import (
    Json,
    examples,
)

# Commands import what they need when they run, so that --help stays quick.
# ruff: noqa: PLC0415

catalogue = typer.Typer(rich_markup_mode=None)


class Kind(StrEnum):
    """What ``servescope list`` can list."""

    MODELS = "models"
    GPUS = "gpus"
    DATASETS = "datasets"
    SCHEDULERS = "schedulers"
    PROFILES = "profiles"
    ROUTERS = "routers"
    QUEUES = "queues"
    PLACEMENTS = "placements"
    ROUTING = "routing"


@catalogue.command(
    "list",
    epilog=examples("servescope list", "servescope list gpus --json"),
)
def list_names(
    kind: Annotated[
        Kind | None,
        typer.Argument(
            metavar="KIND",
            help="What to list; everything if left out: " + ", ".join(Kind) + ".",
            show_default=False,
            show_choices=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the names that a configuration may use."""
    from sim.cli_list import list_command

    list_command(None if kind is None else kind.value, as_json=as_json)


@catalogue.command(epilog=examples("servescope schema > servescope.schema.json"))
def schema() -> None:
    """Print the JSON Schema of a configuration file."""
    from sim.cli_list import schema_command

    schema_command()
