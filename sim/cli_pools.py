"""Pools of a run on the terminal: what each was, did, drew and cost."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from sim.build_pools import Machines
from sim.pool_summary import pool_names
from sim.summary import Summary

_HEADS = ("requests", "busy %", "kJ", "W/GPU", "GPU-h", "USD")
_KEYS = (
    *("role", "gpu", "num_gpus", "requests", "utilisation", "energy_j"),
    *("mean_power_w", "gpu_hours", "usd"),
)


def pools_table(summary: Summary) -> Table | None:
    """One row per pool; None without pools."""
    names = pool_names(summary)
    if not names:
        return None
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for head in ("Pool", "role", "GPUs"):
        table.add_column(head, no_wrap=True)
    for head in _HEADS:
        table.add_column(head, justify="right")
    for name in names:
        own = {key: summary[f"pool_{name}_{key}"] for key in _KEYS}
        gpus, power_w = own["num_gpus"], own["mean_power_w"] or 0.0
        table.add_row(
            name,
            own["role"],
            f"{gpus} x {own['gpu']}",
            str(own["requests"]),
            f"{100 * (own['utilisation'] or 0.0):.1f}",
            f"{own['energy_j'] / 1e3:.2f}",
            f"{power_w / gpus:.0f}",
            f"{own['gpu_hours']:.4f}",
            f"{own['usd']:.4f}",
        )
    return table


def pools_note(machines: Machines) -> str:
    """Lines of the start note: replicas, policy and KV cache of each pool."""
    lines = []
    for part in machines.pools:
        pool, machine = part.pool, part.machine
        block_size = pool.config.engine.block_size
        lines.append(
            f"pool {pool.name} ({pool.role}): {pool.replicas} replica(s) of"
            f" {machine.power.num_gpus} x {machine.gpu.name},"
            f" {pool.config.engine.scheduler}, KV cache {machine.num_blocks} blocks of"
            f" {block_size}\n"
        )
    return "".join(lines)
