"""The command ``servescope``: its groups of commands, and how it ends.

Exit codes: 0, 1 when a simulation failed, 2 for bad input, 130 when interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Final, NoReturn

import typer

from sim.cli_calibrate import calibrate
from sim.cli_catalogue import catalogue
from sim.cli_placements import placements
from sim.cli_results import results
from sim.cli_simulations import simulations
from sim.cli_studies import studies
from sim.errors import ConfigError, SimulationError

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


def _version(wanted: bool) -> None:
    if wanted:
        # Only here, so that --help stays quick.
        from sim.version import servescope_version  # noqa: PLC0415

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


for group in (simulations, results, placements, studies):
    app.add_typer(group)
app.add_typer(calibrate, name="calibrate")
app.add_typer(catalogue)


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
