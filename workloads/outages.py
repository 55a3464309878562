"""Outages of replicas: from a CSV file, or drawn from a law."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final

import numpy as np

from sim.errors import ConfigError
from sim.input_csv import csv_rows
from sim.outages import Outage, Outages
from sim.units import NS_PER_S, ns_from_s, s_from_ns
from workloads.limits import MAX_TIME_S
from workloads.streams import stream
from workloads.trace import bad_value

COLUMNS: Final = ("replica", "kind", "start_s", "end_s")
KINDS: Final = ("failure", "drain")
MAX_OUTAGES: Final = 100_000
DRAWN: Final = 2000
"""Failures of each replica; a run that outlasts them is refused."""
_DECIMAL: Final = re.compile(r"[0-9.eE+-]{1,40}")
_INDEX: Final = re.compile(r"[0-9]{1,9}")


def read_outages(path: str, replicas: int) -> Outages:
    """Read a file with the columns replica, kind, start_s and end_s.

    Args:
        path: CSV file, unpacked if its name ends in .gz; rows in any order, other
            columns are ignored.
        replicas: How many there are.

    Raises:
        ConfigError: On the first thing wrong, naming file, line, column and value.
    """
    rows = csv_rows(Path(path))
    line, header = next(rows, (1, []))
    for name in COLUMNS:
        if header.count(name) != 1:
            found = "twice" if name in header else "missing"
            raise bad_value(path, line, name, found, f"a header {','.join(COLUMNS)}")
    places = [header.index(name) for name in COLUMNS]
    found_at: list[tuple[Outage, int]] = []
    for line, row in rows:
        if len(row) != len(header):
            raise bad_value(path, line, "fields", len(row), str(len(header)))
        if len(found_at) == MAX_OUTAGES:
            raise bad_value(path, line, "rows", "more", f"at most {MAX_OUTAGES}")
        outage = _outage(path, line, [row[k] for k in places], replicas)
        found_at.append((outage, line))
    return Outages(_in_order(path, found_at, replicas))


def _outage(path: str, line: int, row: list[str], replicas: int) -> Outage:
    index, kind, start, end = row
    if not _INDEX.fullmatch(index) or int(index) >= replicas:
        allowed = f"an integer in 0..{replicas - 1}"
        raise bad_value(path, line, "replica", index, allowed)
    if kind not in KINDS:
        raise bad_value(path, line, "kind", kind, " or ".join(KINDS))
    start_ns = _time_ns(path, line, "start_s", start)
    end_ns = _time_ns(path, line, "end_s", end)
    if end_ns <= start_ns:
        raise bad_value(path, line, "end_s", end, f"later than start_s ({start})")
    return Outage(int(index), start_ns, end_ns, kind == "failure")


def _time_ns(path: str, line: int, column: str, text: str) -> int:
    try:
        # The pattern also keeps out "nan", "inf", "1_0" and other digits than ASCII.
        seconds = float(text) if _DECIMAL.fullmatch(text) else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_TIME_S:
        raise bad_value(path, line, column, text, f"seconds in 0..{MAX_TIME_S:g}")
    return ns_from_s(seconds)


def _in_order(
    path: str, found_at: list[tuple[Outage, int]], replicas: int
) -> tuple[tuple[Outage, ...], ...]:
    """By replica and time, each later than the end of the one before."""
    of: list[list[Outage]] = [[] for _ in range(replicas)]
    for outage, line in sorted(found_at, key=lambda pair: pair[0].start_ns):
        before = of[outage.replica][-1:]
        if before and outage.start_ns <= before[0].end_ns:
            shown = repr(s_from_ns(outage.start_ns))
            end = repr(s_from_ns(before[0].end_ns))
            allowed = f"later than {end}, the end of an earlier outage of the replica"
            raise bad_value(path, line, "start_s", shown, allowed)
        of[outage.replica].append(outage)
    return tuple(map(tuple, of))


def draw_outages(seed: int, replicas: int, mtbf_s: float, repair_s: float) -> Outages:
    """Failures with exponential times between a repair and the next failure.

    The textbook model of a machine with failures (Ross, "Introduction to Probability
    Models", alternating renewal process): in the long run a replica is up for
    mtbf / (mtbf + repair) of the time. Failure k of a replica is the same whatever the
    policy, the load and the number of replicas.

    Args:
        seed: Of the run.
        replicas: How many there are.
        mtbf_s: Mean time from a repair (or the start) to a failure.
        repair_s: Mean time to repair, exponential too.

    Raises:
        ConfigError: If there would be more failures than memory is spent on.
    """
    if replicas * DRAWN > 10 * MAX_OUTAGES:
        most = 10 * MAX_OUTAGES // DRAWN
        raise ConfigError(
            f"cluster.mtbf_s: failures of {replicas} replicas; allowed: at most {most}"
        )
    return Outages(
        tuple(_drawn(seed, k, mtbf_s, repair_s) for k in range(replicas)), endless=True
    )


def _drawn(
    seed: int, replica: int, mtbf_s: float, repair_s: float
) -> tuple[Outage, ...]:
    means_ns = np.array([mtbf_s, repair_s]) * NS_PER_S
    drawn = stream(seed, f"outages.{replica}").exponential(means_ns, (DRAWN, 2))
    now_ns, outages = 0, []
    for up, down in drawn.tolist():
        start_ns = now_ns + max(1, round(up))
        now_ns = start_ns + max(1, round(down))
        outages.append(Outage(replica, start_ns, now_ns, failure=True))
    return tuple(outages)
