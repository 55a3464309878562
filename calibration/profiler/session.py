"""One profiling session: the grid, measured kernel by kernel, to the end or resumed.

Files in the session's folder: `journal.jsonl` grows by one line per kernel;
`kernels.csv` (see `schema`) and `provenance.json` appear, whole, when all kernels of
the grid are done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from calibration.profiler.columns import Kernel
from calibration.profiler.device import Device, KernelFailedError
from calibration.profiler.journal import Entry, Journal
from calibration.profiler.schema import csv_bytes
from calibration.profiler.timing import TimingRules, measure
from sim.config_errors import clip
from sim.files import write_atomic, write_json_atomic

JOURNAL: Final = "journal.jsonl"
TABLE_FILE: Final = "kernels.csv"
PROVENANCE: Final = "provenance.json"
_LONGEST_REASON: Final = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What identifies a session.

    Attributes:
        out: its folder.
        rules: when a kernel is measured well enough.
        seed: of the kernels' input values.
        date: the day, as text; a resumed session keeps the day it was begun.
    """

    out: Path
    rules: TimingRules
    seed: int
    date: str


def run_session(
    device: Device,
    kernels: Sequence[Kernel],
    session: Session,
    on_done: Callable[[], None] = lambda: None,
) -> tuple[Entry, ...]:
    """Measure what is not measured yet, then write the table and its provenance.

    A kernel that fails is recorded with its reason and not tried again.

    Args:
        device: where to measure.
        kernels: what to measure, in this order.
        session: where the files go and how to measure.
        on_done: called once per kernel, also for those done earlier.

    Returns:
        All entries of the session, those of earlier and other grids too, in the
        order in which they were measured.

    Raises:
        ConfigError: if the folder holds another session or cannot be written.
        DeviceLostError: if the GPU answers no more; run again to go on.
    """
    described = dict(device.describe())
    identity = {
        **described,
        "num_gpus": device.num_ranks,
        "seed": session.seed,
        **asdict(session.rules),
    }
    path = session.out / JOURNAL
    writes = device.rank == 0
    with Journal(path, identity, session.date, writable=writes) as journal:
        # all ranks have read the journal before the first one adds to it
        device.synchronize_ranks()
        for kernel in kernels:
            if kernel not in journal.entries:
                journal.add(_measured(device, kernel, session.rules))
                # a failed kernel is in the journal before a lost device ends us
                device.release()
            on_done()
        entries = tuple(journal.entries.values())
        if writes:
            _write(session, journal.started, described, device.num_ranks, entries)
    return entries


def _measured(device: Device, kernel: Kernel, rules: TimingRules) -> Entry:
    try:
        replay = device.capture(kernel)
        timing = measure(device, replay, rules)
    except KernelFailedError as error:
        return Entry(kernel, failed=clip(str(error), _LONGEST_REASON))
    return Entry(kernel, replay.source, timing)


def _write(
    session: Session,
    started: str,
    described: dict[str, str],
    num_gpus: int,
    entries: Sequence[Entry],
) -> None:
    """The table first: a provenance always has its table beside it."""
    table = csv_bytes(row for entry in entries if (row := entry.row) is not None)
    write_atomic(session.out / TABLE_FILE, table)
    sources = Counter(entry.source for entry in entries if entry.source)
    timers = Counter(e.timing.timer for e in entries if e.timing is not None)
    provenance: dict[str, Any] = {
        "table": TABLE_FILE,
        "sha256": sha256(table).hexdigest(),
        "date": started,
        "device": described,
        "num_gpus": num_gpus,
        "seed": session.seed,
        "rules": asdict(session.rules),
        "kernel_sources": dict(sorted(sources.items())),
        "timers": dict(sorted(timers.items())),
        "flagged": {
            e.kernel.name: list(e.timing.flags)
            for e in entries
            if e.timing is not None and e.timing.flags
        },
        "failed": {e.kernel.name: e.failed for e in entries if e.failed},
    }
    write_json_atomic(session.out / PROVENANCE, provenance)
