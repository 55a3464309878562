"""What the commands share: where notes go, progress, warnings, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sim.summary import EXTRAPOLATED_KERNELS, Summary

if TYPE_CHECKING:
    import pandas as pd

_MANY_EXTRAPOLATED: Final = 0.05
_MOST_KNOBS: Final = 3


def print_json(document: object) -> None:
    """Print one JSON document; it has no NaN and no infinity."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: None where a number is missing or infinite."""
    return [
        {
            str(key): None
            if isinstance(value, float) and not math.isfinite(value)
            else value
            for key, value in row.items()
        }
        for row in frame.to_dict("records")
    ]


@contextmanager
def progress(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Give a function that counts one more done; a bar shows on a terminal only."""
    console = Console(stderr=True)
    with Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def warn(summaries: Sequence[Summary]) -> None:
    """Say on stderr what a reader of the numbers must know."""
    warn_what_if(summary.get("what_if") for summary in summaries)
    shares = [summary["extrapolated_fraction"] or 0.0 for summary in summaries]
    if max(shares) > _MANY_EXTRAPOLATED:
        _warn(
            f"{100 * max(shares):.1f} % of the time lies outside profiled ranges"
            f" (extrapolated by rooflines){_by_kernel(summaries)}"
        )
    if rejected := sum(summary["rejected"] for summary in summaries):
        sent = sum(summary["num_prompts"] for summary in summaries)
        _warn(f"{rejected} of {sent} requests were rejected; see requests.csv.gz")


def warn_what_if(knobs: Iterable[str | None]) -> None:
    """Say on stderr which machines are no profiled ones; ``knobs`` of each run."""
    distinct = list(dict.fromkeys(text for text in knobs if text))
    for text in distinct[:_MOST_KNOBS]:
        _warn(f"what-if, not a machine that was profiled: {text}")
    if len(distinct) > _MOST_KNOBS:
        more = len(distinct) - _MOST_KNOBS
        _warn(f"what-if: {more} more machines that were not profiled")


def _warn(text: str) -> None:
    typer.echo(f"warning: {text}", err=True)


def _by_kernel(summaries: Sequence[Summary]) -> str:
    """The kernels it lies in, as shares of the time, of the run with most of it."""
    most = max(summaries, key=lambda summary: summary["extrapolated_fraction"] or 0.0)
    shares = {
        kernel: most.get(f"extrapolated_{kernel}_fraction") or 0.0
        for kernel in EXTRAPOLATED_KERNELS
    }
    named = [f"{kernel} {100 * s:.1f} %" for kernel, s in shares.items() if s > 0]
    return f": {', '.join(named)}" if named else ""
