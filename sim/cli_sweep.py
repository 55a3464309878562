"""The command ``servescope sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pandas as pd
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sim.cli_output import print_json, progress, records, warn_what_if
from sim.config_errors import clip
from sim.studies.estimate import estimated_s
from sim.studies.replications import MEANS_FILE
from sim.studies.study import SEED
from sim.studies.sweep import (
    POINTS_FILE,
    SweepOptions,
    SweepPlan,
    SweepResult,
    pending,
    sweep,
)

_MOST_ROWS: Final = 24
_MOST_FAILURES: Final = 5
# Key of result.json, heading, factor, decimals.
_METRICS: Final = (
    ("mean_ttft_ms", "TTFT\nmean s", 1e-3, 2),
    ("p99_itl_ms", "TBT\np99 ms", 1.0, 1),
    ("slo_attainment", "SLO\n%", 100.0, 1),
    ("energy_per_token_j", "Energy\nmJ/tok", 1e3, 1),
    ("usd_per_million_tokens", "USD/M\ntokens", 1.0, 3),
)


def sweep_command(
    plan: SweepPlan,
    out: Path,
    options: SweepOptions,
    *,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run a planned sweep (or say what it would do) and print its table.

    Returns:
        The number of failed points.

    Raises:
        ConfigError: See :func:`sim.studies.sweep.sweep`.
        SimulationError: See there.
    """
    todo = pending(plan, out, retry_failed=options.retry_failed)
    if dry_run:
        _print_plan(plan, len(todo), estimated_s(todo, options.jobs), as_json=as_json)
        return 0
    with progress("points", len(todo), quiet=quiet) as one_more:
        result = sweep(plan, out, options, one_more)
    _warn_failed(result)
    if "what_if" in result.points:
        warn_what_if(result.points["what_if"].dropna())
    if as_json:
        print_json({"points": records(result.points)})
    elif not quiet:
        Console().print(points_table(result))
        typer.echo(
            f"{len(result.points)} points, {result.ran} of them run now,"
            f" {len(result.failed)} failed\nwritten: {out / POINTS_FILE}"
        )
    return len(result.failed)


def points_table(result: SweepResult) -> Table:
    """Varied keys and main metrics of the first points, or their means over seeds."""
    if result.means is None:
        whole, keys, file = result.points, list(result.varied), POINTS_FILE
    else:
        whole, file = result.means, MEANS_FILE
        keys = [key for key in result.varied if key != SEED]
    frame = whole.head(_MOST_ROWS)
    left = len(whole) - len(frame)
    title = f"and {left} more rows in {file}" if left else None
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1), caption=title)
    for key in keys:
        name = key.rpartition(".")[2].replace("_", "\n")
        table.add_column(name, justify="right", overflow="fold")
    for _, heading, _, _ in _METRICS:
        table.add_column(heading, justify="right")
    for row in records(frame):
        cells = [_value(row[key]) for key in keys]
        cells += [
            _number(row.get(key), row.get(f"{key}_ci_high"), by, d)
            for key, _, by, d in _METRICS
        ]
        table.add_row(*cells)
    return table


def _print_plan(
    plan: SweepPlan, todo: int, seconds: float | None, *, as_json: bool
) -> None:
    if as_json:
        print_json(
            {
                "points": len(plan.points),
                "pending": todo,
                "estimated_s": seconds,
                "settings": records(pd.DataFrame(plan.settings)),
            }
        )
        return
    about = "unknown (the pilot run failed)" if seconds is None else _duration(seconds)
    typer.echo(
        f"{len(plan.points)} points, {todo} to run, about {about}"
        " (from one short pilot; longer past saturation); nothing written"
    )


def _warn_failed(result: SweepResult) -> None:
    failed = result.failed
    for _, row in failed.head(_MOST_FAILURES).iterrows():
        what = ", ".join(f"{key} = {row[key]}" for key in result.varied)
        typer.echo(f"failed: {clip(what, 200)}: {row['error']}", err=True)
    if len(failed) > _MOST_FAILURES:
        more = len(failed) - _MOST_FAILURES
        typer.echo(f"failed: {more} more; see error in {POINTS_FILE}", err=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _value(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.removesuffix("-prefill")


def _number(
    value: float | None, high: float | None, factor: float, decimals: int
) -> str:
    """The number, with half its interval where it has one."""
    if value is None:
        return "-"
    half = "" if high is None else f"±{(high - value) * factor:.{decimals}f}"
    return f"{value * factor:.{decimals}f}{half}"
