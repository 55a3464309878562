"""Options and help texts that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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

Check = Annotated[
    bool,
    typer.Option(
        "--check",
        envvar="SERVESCOPE_CHECK",
        help="Check every invariant at every event; same results, up to 2 x the time.",
    ),
]


def out_option(default: str) -> Any:
    """The option --out; Any, as typer.Option itself is typed."""
    return typer.Option(
        "--out",
        metavar="DIR",
        help="Directory for the results; files of earlier ones are overwritten. "
        f"[default: {default}]",
        show_default=False,
    )


def examples(*lines: str) -> str:
    """Help text whose lines stay apart."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
