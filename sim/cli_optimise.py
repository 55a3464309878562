"""The command ``servescope optimise``."""

from __future__ import annotations

from pathlib import Path

import typer

from reports.pareto_report import pareto_sets, write_pareto
from reports.terminal_plot import frontier_text
from sim.cli_output import print_json, progress, records
from sim.studies.optimise import Optimisation, optimise
from sim.studies.study import Space

_FEWEST_OBJECTIVES = 2


def optimise_command(
    space: Space, out: Path, search: Optimisation, *, as_json: bool, quiet: bool
) -> None:
    """Search a space, write its points and frontier, and print the frontier.

    Raises:
        ConfigError: See :func:`sim.studies.optimise.optimise`.
    """
    with progress("trials", search.trials, quiet=quiet) as one_more:
        frame = optimise(space, out, search, one_more)
    good = frame[frame["status"] == "ok"].reset_index(drop=True)
    if len(search.metrics) >= _FEWEST_OBJECTIVES and len(good):
        sets = pareto_sets(good, [search.metrics])
        write_pareto(sets, out)
        good = good[sets[0][1].on_joint]
        if not as_json and not quiet:
            typer.echo("\n".join(frontier_text(sets[0][1])))
    if as_json:
        print_json({"points": len(frame), "front": records(good)})
    elif not quiet:
        typer.echo(f"{len(frame)} points, {len(good)} of them best\nwritten: {out}")
