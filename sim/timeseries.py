"""State and power of a run, second by second, under vLLM's metric names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim.energy import PowerModel
from sim.iteration_log import IterationLog
from sim.outages import OffSpan
from sim.table import Table
from sim.units import NS_PER_S

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def run_end_ns(logs: Sequence[IterationLog]) -> int:
    """End of the run (ns): the last finish over replicas; 0 when nothing ran."""
    return max((log.last_end_ns for log in logs), default=0)


def timeseries_table(
    logs: Sequence[IterationLog],
    power: PowerModel | Sequence[PowerModel],
    num_blocks: int | Sequence[int],
    off: Sequence[Sequence[OffSpan]] = (),
) -> Table:
    """Running and waiting requests, KV usage and power in bins of one second.

    The last bin ends with the run, so the sum of ``power_w`` times bin width is the
    energy of the run, idling included.

    Args:
        logs: Iterations of each replica.
        power: Board power of one replica, or of each.
        num_blocks: KV blocks of one replica, or of each.
        off: Stretches in which each replica took no power; or nothing.

    Returns:
        One row per bin: ``time_s``, its start; ``running``, ``waiting`` and
        ``kv_cache_usage_perc`` (0 to 1) at that instant; ``power_w``, the mean over
        the bin; all of them over all replicas.
    """
    end_ns = run_end_ns(logs)
    edges = np.append(np.arange(0, end_ns, NS_PER_S, dtype=np.int64), end_ns)
    starts, width_s = edges[:-1], np.diff(edges) / NS_PER_S
    powers = [power] * len(logs) if isinstance(power, PowerModel) else power
    energy_j = np.zeros(edges.size)
    for log, own in zip(logs, powers, strict=True):
        energy_j = energy_j + _energy_j(log, edges, own)
    spans = [span.within_ns(end_ns) for own in off for span in own]
    if spans:  # pools that differ are never off
        passed_ns = sum(_passed_ns(edges, span) for span in spans)
        energy_j -= passed_ns * _idle_j_per_ns(powers[0])
    room = len(logs) * num_blocks if isinstance(num_blocks, int) else sum(num_blocks)
    blocks = _sampled(logs, "used_blocks", starts)
    return Table(
        {
            "time_s": starts // NS_PER_S,
            "running": _sampled(logs, "running", starts),
            "waiting": _sampled(logs, "waiting", starts),
            "kv_cache_usage_perc": blocks / room,
            "power_w": np.diff(energy_j) / width_s,
        }
    )


def _sampled(logs: Sequence[IterationLog], name: str, times_ns: Int64) -> Int64:
    """Sum over replicas of a column in the iteration under way at each time."""
    total = np.zeros(times_ns.size, dtype=np.int64)
    for log in logs:
        if not len(log.end_ns):
            continue
        start, end = _column(log.start_ns), _column(log.end_ns)
        current = np.searchsorted(start, times_ns, side="right") - 1
        under_way = (current >= 0) & (end[current] > times_ns)
        total += np.where(under_way, _column(getattr(log, name))[current], 0)
    return total


def _energy_j(log: IterationLog, times_ns: Int64, power: PowerModel) -> Float64:
    """Energy of a replica up to each time: even over an iteration, idle between."""
    start, end = _column(log.start_ns), _column(log.end_ns)
    # Knots of a piecewise linear function: both ends of every iteration.
    knots = np.column_stack((start, end)).ravel()
    busy_ns = _accumulated(times_ns, knots, (end - start).astype(np.float64))
    used_j = _accumulated(times_ns, knots, np.asarray(log.energy_j, dtype=np.float64))
    return used_j + (times_ns - busy_ns) * _idle_j_per_ns(power)


def _idle_j_per_ns(power: PowerModel) -> float:
    """Joules per nanosecond of a replica that idles."""
    return power.idle_j(NS_PER_S) / NS_PER_S


def _passed_ns(times_ns: Int64, span: tuple[int, int]) -> Int64:
    """How much of a span has passed at each time."""
    return np.clip(times_ns, *span) - span[0]


def _accumulated(times_ns: Int64, knots: Int64, amounts: Float64) -> Float64:
    """Sum of ``amounts``, each spread evenly between its two knots, up to each time."""
    after = np.cumsum(amounts)
    before = np.concatenate(([0.0], after[:-1]))
    sums = np.column_stack((before[: amounts.size], after)).ravel()
    if not sums.size:
        return np.zeros(times_ns.size)
    return np.asarray(np.interp(times_ns, knots, sums), dtype=np.float64)


def _column(values: Sequence[int]) -> Int64:
    return np.asarray(values, dtype=np.int64)
