"""What each pool of a run did, as numbers of its summary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim.build_pools import PoolMachine
from sim.energy import PowerModel
from sim.iteration_log import IterationLog
from sim.record_table import RecordTable
from sim.units import s_from_ns

_JOULES = ("energy_run_j", "energy_wait_j", "energy_hbm_j", "energy_flop_j")
_S_PER_HOUR = 3600


def pool_summary(
    pools: Sequence[PoolMachine],
    logs: Sequence[IterationLog],
    table: RecordTable,
    end_ns: int,
) -> dict[str, Any]:
    """Figures of each pool under ``pool_NAME_...``; nothing without pools.

    They are ``role``, ``gpu``, ``num_gpus``, ``replicas``, ``requests`` (that finished
    prefill or decoding in it: a request counts in its prefill and its decode pool),
    ``utilisation`` (share of the run in which its replicas ran an iteration),
    ``energy_j``, ``energy_per_gpu_j``, ``mean_power_w``, ``gpu_hours`` and ``usd``.

    Args:
        pools: The pools.
        logs: Iterations of each replica.
        table: Requests of the run.
        end_ns: End of the run.
    """
    summary: dict[str, Any] = {}
    for part in pools:
        own = _figures(part, logs, table, end_ns)
        summary |= {f"pool_{part.pool.name}_{key}": own[key] for key in own}
    return summary


def pool_names(summary: Mapping[str, Any]) -> list[str]:
    """The pools that a summary is of, in order."""
    ends = ("pool_", "_utilisation")
    return [
        key.removeprefix(ends[0]).removesuffix(ends[1])
        for key in summary
        if key.startswith(ends[0]) and key.endswith(ends[1])
    ]


def _figures(
    part: PoolMachine, logs: Sequence[IterationLog], table: RecordTable, end_ns: int
) -> dict[str, Any]:
    machine, own = part.machine, [logs[r] for r in part.replicas]
    gpus = machine.power.num_gpus * len(own)
    energy_j = replicas_j(machine.power, own, end_ns)
    busy_ns = sum(int(log.totals["duration_ns"]) for log in own)
    duration_s = s_from_ns(end_ns)
    hours = gpus * duration_s / _S_PER_HOUR
    return {
        "role": part.pool.role,
        "gpu": machine.gpu.name,
        "num_gpus": gpus,
        "replicas": len(own),
        "kv_cache_tokens": machine.num_blocks * part.pool.config.engine.block_size,
        "requests": _requests(part, table),
        "utilisation": busy_ns / (len(own) * end_ns) if end_ns else None,
        "energy_j": energy_j,
        "energy_per_gpu_j": energy_j / gpus,
        "mean_power_w": energy_j / duration_s if duration_s else None,
        "gpu_hours": hours,
        "usd": part.pool.config.cost.usd_per_gpu_hour * hours,
    }


def _requests(part: PoolMachine, table: RecordTable) -> int:
    done = table.known("finish_ns")
    here = np.zeros(len(done), dtype=bool)
    for column in ("replica", "prefill_replica"):
        at = table.column(column)
        here |= (at >= part.first) & (at < part.first + len(part.replicas))
    return int(np.count_nonzero(here & done))


def replicas_j(power: PowerModel, logs: Sequence[IterationLog], end_ns: int) -> float:
    """Energy of replicas that are always on, iterations and idling (J)."""
    busy_ns = sum(int(log.totals["duration_ns"]) for log in logs)
    idle_j = power.idle_j(len(logs) * end_ns - busy_ns)
    return math.fsum([*(log.totals[name] for log in logs for name in _JOULES), idle_j])
