"""The command ``servescope capacity``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sim.cli_output import print_json, progress
from sim.config import Config
from sim.statistics import Interval
from sim.studies.capacity import Capacity, Search, find_capacity
from sim.studies.min_replicas import MinReplicas, Size, find_min_replicas
from sim.studies.target import Target

# Key, name, factor, unit: what is said of the point found.
_AT_POINT: Final = (
    ("output_throughput", "output throughput", 1.0, "tokens/s"),
    ("usd_per_million_tokens", "cost", 1.0, "USD/million tokens"),
    ("energy_per_token_j", "energy", 1e3, "mJ/token"),
    ("mean_power_w", "mean power, all GPUs", 1.0, "W"),
)


def capacity_command(
    config: Config,
    target: Target,
    out: Path,
    search: Search,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Search the highest rate and print it, with cost and energy there.

    Raises:
        ConfigError: See :func:`sim.studies.capacity.find_capacity`.
    """
    with progress("seeds", search.max_seeds, quiet=quiet) as one_more:
        found = find_capacity(config, target, out, search, lambda _: one_more())
    if as_json:
        print_json(_document(found, target))
    elif not quiet:
        typer.echo(f"target: {target.text()}")
        typer.echo(_answer(found))
        if math.isfinite(found.rate.low):
            for key, name, factor, unit in _AT_POINT:
                text = _interval(found.at_capacity(key), factor)
                typer.echo(f"  {name}: {text} {unit}")
        typer.echo(f"{found.runs} runs\nwritten: {out}")
    if found.unstable:
        typer.echo(
            f"warning: unstable: in {found.unstable} of {len(found.seeds)} seeds the"
            " queue still grew at that rate, which holds for runs of this length only;"
            " ask for a longer workload.duration_s",
            err=True,
        )


def min_replicas_command(
    config: Config,
    target: Target,
    out: Path,
    search: Search,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Search the fewest replicas and print all that were tried.

    Raises:
        ConfigError: See :func:`sim.studies.min_replicas.find_min_replicas`.
    """
    found = find_min_replicas(config, target, out, search)
    gpus = config.parallel.gpus_per_replica
    if as_json:
        sizes = [_size_document(size, gpus) for size in found.tried]
        best = None if found.best is None else found.best.replicas
        print_json({"target": target.text(), "replicas": best, "tried": sizes})
    elif not quiet:
        typer.echo(f"target: {target.text()}")
        Console().print(_sizes_table(found, gpus))
        typer.echo(_replicas_answer(found, gpus))
        typer.echo(f"written: {out}")


def _answer(found: Capacity) -> str:
    rate = found.rate.estimate
    if rate == 0:
        return "capacity: none; the target is missed at every rate tried"
    if math.isinf(rate):
        tried = max(e.rate for s in found.seeds for e in s.evaluations)
        return (
            f"capacity: above {tried:g} req/s, the highest rate tried; the run is too"
            " short, or the target too loose, to reach its end"
        )
    return f"capacity: {_interval(found.rate)} req/s over {found.rate.count} seeds"


def _replicas_answer(found: MinReplicas, gpus: int) -> str:
    best = found.best
    if best is None:
        most = found.tried[-1].replicas
        return f"no number of replicas up to {most} meets the target"
    sure = "" if best.sure else "; its interval spans the target: one more to be safe"
    return f"fewest replicas: {best.replicas}, {best.replicas * gpus} GPUs{sure}"


def _sizes_table(found: MinReplicas, gpus: int) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    for name in ("replicas", "GPUs", "met", "SLO %", "p99 TTFT s", "USD/M", "mJ/token"):
        table.add_column(name, justify="right")
    for size in found.tried:
        ttft = _interval(size.metric("p99_ttft_ms"), 1e-3)
        table.add_row(
            str(size.replicas),
            str(size.replicas * gpus),
            "yes" if size.met else "no",
            _interval(size.metric("slo_attainment"), 100.0),
            "unstable" if size.unstable else ttft,
            _interval(size.metric("usd_per_million_tokens")),
            _interval(size.metric("energy_per_token_j"), 1e3),
        )
    return table


def _document(found: Capacity, target: Target) -> dict[str, Any]:
    return {
        "target": target.text(),
        "capacity_req_s": _numbers(found.rate),
        "seeds": [
            {"seed": seed.seed, "capacity_req_s": _known(seed.rate)}
            for seed in found.seeds
        ],
        "runs": found.runs,
        "unstable_seeds": found.unstable,
        "at_capacity": {
            key: _numbers(found.at_capacity(key)) for key, _, _, _ in _AT_POINT
        },
    }


def _size_document(size: Size, gpus: int) -> dict[str, Any]:
    return {
        "replicas": size.replicas,
        "num_gpus": size.replicas * gpus,
        "met": size.met,
        "sure": size.sure,
        "unstable": size.unstable,
        "slo_attainment": _numbers(size.metric("slo_attainment")),
        **{key: _numbers(size.metric(key)) for key, _, _, _ in _AT_POINT},
    }


def _numbers(interval: Interval) -> dict[str, float | None]:
    return {
        "mean": _known(interval.estimate),
        "ci_low": _known(interval.low),
        "ci_high": _known(interval.high),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _interval(interval: Interval, factor: float = 1.0) -> str:
    """Mean and half width at three significant figures of the mean."""
    value, half = interval.estimate * factor, interval.half_width * factor
    if not math.isfinite(value):
        return "-"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 2
    error = f" ± {half:.{decimals}f}" if math.isfinite(half) else ""
    return f"{value:.{decimals}f}{error}"
