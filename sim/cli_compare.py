"""The command ``servescope compare``."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from reports.compare import FRONTIER
from reports.frame import short_policy
from reports.tables import comparison_table, gpu_table, summary_table
from reports.tradeoff import TRADEOFF_FILE, read_tradeoff, tradeoff_text
from sim.cli_output import print_json, progress, warn
from sim.compare import Comparison, Plan, compare, compare_frame
from sim.config_errors import clip
from sim.errors import ConfigError
from sim.paired import METRICS

_MOST_RATES: Final = 1000
# Heading of each metric of a paired difference, and milliseconds in its unit.
_PAIRED: Final = dict(
    zip(
        METRICS,
        (("TTFT\ns", 1e3), ("E2E\ns", 1e3), ("worst TBT\nms", 1.0)),
        strict=True,
    )
)


def parse_names(text: str) -> list[str]:
    """Names of a comma-separated list."""
    return [name.strip() for name in text.split(",")]


def parse_rates(text: str) -> list[float]:
    """Rates of "first:last:step", ends included, or of a comma-separated list.

    Decimal steps are exact: 1.0:1.8:0.1 holds 1.3, not 1.3000000000000003.

    Raises:
        ConfigError: If it is neither, or holds too many; whether a rate is allowed is
            for the configuration to say.
    """
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",")]
        first, last, step = (Decimal(part) for part in text.split(":"))
    except (InvalidOperation, ValueError):
        raise _bad_rates(text) from None
    finite = first.is_finite() and last.is_finite() and step.is_finite()
    if not finite or not 0 <= last - first < step * _MOST_RATES:
        raise _bad_rates(text)
    return [float(first + step * k) for k in range(int((last - first) / step) + 1)]


def _bad_rates(text: str) -> ConfigError:
    return ConfigError(
        f'--rates = "{clip(text)}": must be FIRST:LAST:STEP with STEP > 0 and 1 to'
        f" {_MOST_RATES} rates, or numbers with commas between"
    )


def compare_command(
    plan: Plan,
    out: Path,
    *,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
    iterations: bool,
    check: bool = False,
) -> None:
    """Run a planned comparison, write its files to ``out`` and print its tables.

    Raises:
        ConfigError: If a file cannot be written.
        SimulationError: If a scheduler or the engine breaks an invariant.
    """
    with progress("runs", len(plan.runs), quiet=quiet) as one_more:
        result = compare(
            plan,
            out,
            jobs=jobs,
            iterations=iterations,
            on_done=one_more,
            check=check,
        )
    warn([*result.points, *result.further])
    if as_json:
        print_json({"points": result.points, "paired": result.paired})
    elif not quiet:
        _print_tables(result)
        if plan.tradeoff:
            for line in tradeoff_text(read_tradeoff(out / TRADEOFF_FILE)):
                typer.echo(line)
        typer.echo(f"to look at it: servescope report {out}")
        for path in result.figures:
            if path.name == f"{FRONTIER}.png":
                typer.echo(f"TTFT-TBT frontier: {path}")
        typer.echo(f"written: {out}")


def _print_tables(result: Comparison) -> None:
    console, frame = Console(), compare_frame(result.points)
    console.print(comparison_table(frame))
    more = frame["kv_transfers"].any() or frame["prefix_cache_hit_rate"].notna().any()
    if frame["scheduler"].nunique() > 2 or more:
        console.print(gpu_table(frame))
    changes = summary_table(frame)
    if changes.row_count:
        console.print(changes)
    if result.paired:
        console.print(paired_table(result.paired))


def paired_table(paired: Sequence[dict[str, Any]]) -> Table:
    """Mean difference per request and its 95 % interval, a row per load and policy."""
    title = f"per request, minus {paired[0]['baseline']}: mean and 95 % interval"
    table = Table(title=title, box=SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    table.add_column("Load")
    table.add_column("Policy")
    for heading, _ in _PAIRED.values():
        table.add_column(heading, justify="right")
    rows: dict[tuple[str, str], list[str]] = {}
    for row in paired:
        cells = rows.setdefault((row["load"], row["scheduler"]), [])
        cells.append(_difference(row, _PAIRED[row["metric"]][1]))
    for (load, scheduler), cells in rows.items():
        table.add_row(load, short_policy(scheduler), *cells)
    return table


def _difference(row: dict[str, Any], ms: float) -> str:
    mean, low = row["mean_difference_ms"], row["ci_low_ms"]
    if mean is None:
        return "-"
    width = "" if low is None else f" ± {(mean - low) / ms:.2f}"
    return f"{mean / ms:+.2f}{width}"
