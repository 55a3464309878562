"""The command ``servescope calibrate profile``: time kernels on the user's own GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from calibration.models import model
from calibration.profiler.device import Device
from calibration.profiler.grid import Split, full_grid, within_budget
from calibration.profiler.journal import Entry
from calibration.profiler.schema import TABLES
from calibration.profiler.session import TABLE_FILE, Session, run_session
from calibration.profiler.timing import MIN_ENERGY_WINDOW_NS, TimingRules
from calibration.profiler.torch_device import open_device
from sim.cli_output import print_json, progress
from sim.errors import ConfigError


def new_session(out: Path, *, date: str, seed: int = 0, energy: bool = True) -> Session:
    """A session under the usual rules.

    Args:
        out: its folder.
        date: the day, for the provenance.
        seed: of the kernels' input values.
        energy: also measure energy, five seconds a kernel.
    """
    rules = TimingRules(energy_window_ns=MIN_ENERGY_WINDOW_NS if energy else 0)
    return Session(out=out, rules=rules, seed=seed, date=date)


def profile_command(
    session: Session,
    models: Sequence[str],
    split: Split,
    *,
    budget_s: float,
    as_json: bool = False,
    quiet: bool = False,
    device_factory: Callable[[int], Device] = open_device,
) -> None:
    """Measure the kernels of some models; resumes what the folder holds.

    Args:
        session: folder, rules, seed and date.
        models: catalogue names or paths of config.json files.
        split: tensor- and expert-parallel size.
        budget_s: time the whole grid may take, by estimate.
        as_json: print one JSON document.
        quiet: print no notes or tables.
        device_factory: opens the GPU, given the seed.

    Raises:
        ConfigError: if an argument is wrong, or torch, a GPU or a process is missing.
        DeviceLostError: if the GPU answers no more.
    """
    shapes = [model(name) for name in models]
    device = device_factory(session.seed)
    quiet = quiet or device.rank > 0
    if device.num_ranks not in (1, split.tp):
        raise ConfigError(
            f"--tp {split.tp}: {device.num_ranks} processes were started; allowed:"
            f" {split.tp} with torchrun --nproc-per-node, or one without collectives"
        )
    session = _without_missing_counter(device, session, quiet=quiet)
    collectives = split.tp > 1 and device.num_ranks == split.tp
    grid = full_grid(shapes, split, device.memory_bytes, collectives=collectives)
    kernels = within_budget(grid, session.rules, budget_s)
    if not quiet and split.tp > 1 and not collectives:
        typer.echo(
            "note: no collectives; to measure them, start with"
            f" torchrun --nproc-per-node {split.tp}",
            err=True,
        )
    with progress("kernels", len(kernels), quiet=quiet) as done:
        try:
            entries = run_session(device, kernels, session, done)
        except KeyboardInterrupt:
            typer.echo("interrupted; run the same command to go on", err=True)
            raise
    if device.rank == 0:
        left = len(grid) - len(kernels)
        _report(session.out, entries, left, as_json=as_json, quiet=quiet)


def _without_missing_counter(
    device: Device, session: Session, *, quiet: bool
) -> Session:
    """The session without energy windows if nothing could be read in them."""
    if not session.rules.energy_window_ns or device.energy_mj() is not None:
        return session
    if not quiet:
        typer.echo(
            "note: no energy counter (NVML through nvidia-ml-py); times only", err=True
        )
    return replace(session, rules=replace(session.rules, energy_window_ns=0))


def _report(
    out: Path, entries: Sequence[Entry], left: int, *, as_json: bool, quiet: bool
) -> None:
    counts = {table: _counts(table, entries) for table in TABLES}
    if as_json:
        document = {"table": str(out / TABLE_FILE), "beyond_budget": left, **counts}
        print_json(document)
        return
    if quiet:
        return
    table = Table(title="kernels", title_justify="left", box=None, pad_edge=False)
    for name in ("table", "measured", "flagged", "failed"):
        table.add_column(name)
    for name, count in counts.items():
        table.add_row(name, *(str(value) for value in count.values()))
    Console().print(table)
    for reason, times in Counter(e.failed for e in entries if e.failed).most_common(3):
        typer.echo(f"note: {times} failed: {reason}", err=True)
    typer.echo(f"{out / TABLE_FILE}; {left} kernels beyond the budget")


def _counts(table: str, entries: Sequence[Entry]) -> dict[str, int]:
    mine = [entry for entry in entries if entry.kernel.table == table]
    timings = [entry.timing for entry in mine if entry.timing is not None]
    return {
        "measured": len(timings),
        "flagged": sum(bool(timing.flags) for timing in timings),
        "failed": len(mine) - len(timings),
    }
