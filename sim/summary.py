"""The numbers of a run, under the keys of ``vllm bench serve`` where it has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from sim.build import Machine
from sim.build_pools import Machines
from sim.config import Config
from sim.config_text import config_sha256
from sim.energy import PowerModel
from sim.handover import KvLinks
from sim.iteration_log import IterationLog
from sim.metrics import LatencySample, Slo, latency_metrics, meets_slo
from sim.policies import policy_label
from sim.pool_summary import pool_summary
from sim.record_table import RecordTable
from sim.shell.cluster import ClusterRun
from sim.timeseries import run_end_ns
from sim.units import NS_PER_MS, s_from_ns
from sim.version import servescope_version
from sim.what_if import what_if_kernels, what_if_text
from workloads.workload import Workload

EXTRAPOLATED_KERNELS = ("experts", "attention", "head")
"""Kernels whose extrapolated time is told apart; the rest of the fraction lies in
projections and all-reduces."""
Summary = dict[str, Any]
"""Plain JSON values; a number that does not exist (a mean of nothing) is None."""

_S_PER_HOUR: Final = 3600
_PER_MILLION: Final = 1e6
_WORK: Final = (
    "expert_weight_bytes",
    "other_weight_bytes",
    "kv_bytes",
    "activation_bytes",
)
_ENERGY: Final = ("energy_run_j", "energy_wait_j", "energy_hbm_j", "energy_flop_j")


def slo_of(config: Config) -> Slo:
    """The limits of a good request."""
    return Slo(**config.slo.model_dump())


def run_summary(
    config: Config,
    machines: Machines,
    workload: Workload,
    run: ClusterRun,
    sample: LatencySample,
) -> Summary:
    """Summarise a run.

    ``duration`` runs from time 0 to the last finish. Tokens and throughputs count
    completed requests, as in vLLM; ``slo_attainment`` counts all, so that a rejected
    request is a missed one. GPUs are those that serve, in all replicas, and idle from
    the start to the end of the run where they do not work and are not off. Where pools
    differ, what can be only of one machine (``kv_cache_tokens``, memory) is of the
    first; :func:`sim.pool_summary.pool_summary` gives each pool's own.
    """
    each = machines.of_replicas(len(run.logs))
    duration_s = s_from_ns(run_end_ns(run.logs))
    table = RecordTable.of(run.records)
    prompt_tokens = int(table.prompt_tokens()[table.known("finish_ns")].sum())
    output_tokens = int(sample.output_tokens.sum())
    totals = _totals(run.logs)
    off_ns = run.fleet.off_ns(run_end_ns(run.logs))
    energy = _energy([m.power for m in each], run.logs, totals, off_ns)
    num_gpus = sum(m.power.num_gpus for m in each)
    usd = math.fsum(
        price * paid * duration_s / _S_PER_HOUR
        for price, paid in _paid_gpus(config, machines, run)
    )
    energy_j, tokens = energy["energy_j"], prompt_tokens + output_tokens
    return {
        **_what_ran(config, machines, workload, num_gpus),
        **_served(run, sample, duration_s, prompt_tokens, output_tokens),
        **_slo(config, run, sample, duration_s),
        **latency_metrics(sample),
        **energy,
        "energy_per_output_token_j": _ratio(energy_j, output_tokens),
        "energy_per_token_j": _ratio(energy_j, tokens),
        "mean_power_w": _ratio(energy_j, duration_s),
        "hbm_bytes": sum(totals[name] for name in _WORK),
        **{name: totals[name] for name in (*_WORK, "link_bytes", "flops")},
        "iterations": sum(len(log) for log in run.logs),
        "preemptions": int(table.column("preemptions").sum()),
        **_found(config, table),
        "extrapolated_fraction": _ratio(
            totals["extrapolated_ns"], totals["duration_ns"]
        ),
        **{
            f"extrapolated_{kernel}_fraction": _ratio(
                totals[f"extrapolated_{kernel}_ns"], totals["duration_ns"]
            )
            for kernel in EXTRAPOLATED_KERNELS
        },
        "usd_per_million_output_tokens": _ratio(usd * _PER_MILLION, output_tokens),
        "usd_per_million_tokens": _ratio(usd * _PER_MILLION, tokens),
        **_moved(config, each, table),
        **_streamed(each[-1], run),
        **_away(run, table, off_ns),
        "energy_per_gpu_j": energy_j / num_gpus,
        **pool_summary(machines.pools, run.logs, table, run_end_ns(run.logs)),
        **_provenance(config, machines, workload),
    }


def _what_ran(
    config: Config, machines: Machines, workload: Workload, num_gpus: int
) -> Summary:
    machine = machines.machine
    gpus = [machine.gpu.name, *(part.machine.gpu.name for part in machines.pools)]
    rate = workload.offered_rate
    block_size = config.engine.block_size
    return {
        "label": policy_label(config),
        "model_id": machine.model.name,
        "scheduler": policy_label(config),
        "profile": machine.profile.name,
        "gpu": " + ".join(dict.fromkeys(gpus)),
        "num_gpus": num_gpus,
        "kv_cache_tokens": machine.num_blocks * block_size,
        "dataset": workload.name,
        "num_prompts": len(workload.requests),
        "request_rate": "inf" if rate == math.inf else rate,
        "burstiness": None if rate is None else config.workload.burstiness,
        "max_concurrency": workload.max_concurrency,
    }


def _served(
    run: ClusterRun,
    sample: LatencySample,
    duration_s: float,
    prompt_tokens: int,
    output_tokens: int,
) -> Summary:
    completed = sample.ttft_ns.size
    return {
        "duration": duration_s,
        "completed": completed,
        "failed": len(run.records) - completed,
        "rejected": len(RecordTable.of(run.records).odd("rejected")),
        "total_input_tokens": prompt_tokens,
        "total_output_tokens": output_tokens,
        "request_throughput": _ratio(completed, duration_s),
        "output_throughput": _ratio(output_tokens, duration_s),
        "total_token_throughput": _ratio(prompt_tokens + output_tokens, duration_s),
    }


def _slo(
    config: Config, run: ClusterRun, sample: LatencySample, duration_s: float
) -> Summary:
    """Goodput and attainments; None where there is no limit to meet."""
    slo = slo_of(config)
    limits = config.slo.model_dump()
    good = _good(sample, slo) if any(v is not None for v in limits.values()) else None
    ttft = _good(sample, Slo(ttft_ms=slo.ttft_ms)) if slo.ttft_ms else None
    itl = _good(sample, Slo(itl_ms=slo.itl_ms)) if slo.itl_ms else None
    sent = len(run.records)
    return {
        "request_goodput": None if good is None else _ratio(good, duration_s),
        "slo_attainment": None if good is None else good / sent,
        "slo_ttft_attainment": None if ttft is None else ttft / sent,
        "slo_itl_attainment": None if itl is None else itl / sent,
        **{f"slo_{name}": limit for name, limit in limits.items()},
    }


def _good(sample: LatencySample, slo: Slo) -> int:
    return int(np.count_nonzero(meets_slo(sample, slo)))


def _totals(logs: Sequence[IterationLog]) -> dict[str, Any]:
    """Sums of the step costs over replicas; integers stay exact."""
    names = logs[0].totals
    return {
        name: math.fsum(log.totals[name] for log in logs)
        if name in _ENERGY
        else sum(log.totals[name] for log in logs)
        for name in names
    }


def _energy(
    powers: Sequence[PowerModel],
    logs: Sequence[IterationLog],
    totals: dict[str, Any],
    off_ns: int,
) -> dict[str, float]:
    """Joules in all and by part; idling is what lies outside iterations, but off.

    Replicas with the same boards idle together; pools are never off.
    """
    idle_ns: dict[PowerModel, int] = {}
    for power, log in zip(powers, logs, strict=True):
        own_ns = run_end_ns(logs) - int(log.totals["duration_ns"])
        idle_ns[power] = idle_ns.get(power, 0) + own_ns
    if off_ns:
        idle_ns[powers[0]] -= off_ns
    parts = {name: totals[name] for name in _ENERGY}
    parts["energy_idle_j"] = math.fsum(p.idle_j(ns) for p, ns in idle_ns.items())
    return {"energy_j": math.fsum(parts.values()), **parts}


def _found(config: Config, table: RecordTable) -> Summary:
    """Prompt tokens found in prefix caches; recomputed prompts are left out (vLLM)."""
    hits = int(table.column("cached_tokens").sum())
    queries = int(table.prompt_tokens()[table.known("first_scheduled_ns")].sum())
    caching = config.engine.enable_prefix_caching
    return {
        "prefix_cache_hits": hits,
        "prefix_cache_hit_rate": _ratio(hits, queries) if caching else None,
    }


def _moved(config: Config, machines: Sequence[Machine], table: RecordTable) -> Summary:
    """KV caches that went from prefill to decode replicas, bytes as held there."""
    moved = table.column("prefill_replica") >= 0
    tokens: dict[KvLinks, int] = {}
    at = table.column("replica")
    for replica, machine in enumerate(machines):
        own = int(table.prompt_tokens()[moved & (at == replica)].sum())
        tokens[machine.links] = tokens.get(machine.links, 0) + own
    return {
        "prefill_replicas": config.parallel.prefill_replicas,
        "kv_transfers": int(np.count_nonzero(moved)),
        "kv_transfer_bytes": sum(
            links.transfer_bytes(count) for links, count in tokens.items()
        ),
    }


def _streamed(machine: Machine, run: ClusterRun) -> Summary:
    """How KV caches moved while they were computed; nothing where none could."""
    log = run.streams
    if log is None:
        return {}
    discarded = log.discarded_layer_tokens / machine.model.num_layers
    return {
        "kv_transfer_messages": log.messages,
        "kv_transfer_discarded_bytes": machine.links.transfer_bytes(discarded),
        "mean_kv_transfer_exposed_ms": _ratio(log.exposed_ns / NS_PER_MS, log.moved),
    }


def _paid_gpus(
    config: Config, machines: Machines, run: ClusterRun
) -> Sequence[tuple[float, float]]:
    """Price of a GPU for an hour, and how many of them are paid for on average."""
    if not machines.pools:
        paid = machines.machine.power.num_gpus * _paid_replicas(run)
        return [(config.cost.usd_per_gpu_hour, paid)]
    gpus: dict[float, float] = {}
    for part in machines.pools:
        price = part.pool.config.cost.usd_per_gpu_hour
        own = part.machine.power.num_gpus * len(part.replicas)
        gpus[price] = gpus.get(price, 0) + own
    return list(gpus.items())


def _paid_replicas(run: ClusterRun) -> float:
    """How many replicas are paid for, on average over the run."""
    end_ns, replicas = run_end_ns(run.logs), len(run.logs)
    unpaid_ns = run.fleet.unpaid_ns(end_ns)
    return replicas - unpaid_ns / end_ns if unpaid_ns else replicas


def _away(run: ClusterRun, table: RecordTable, off_ns: int) -> Summary:
    """What failures, drains and the scaler did."""
    end_ns = run_end_ns(run.logs)
    on_ns = len(run.logs) * end_ns - off_ns
    return {
        "replicas": len(run.logs),
        "retries": int(table.column("retries").sum()),
        "replica_starts": run.fleet.starts,
        "mean_replicas_on": _ratio(on_ns, end_ns),
        "mean_replicas_paid": _paid_replicas(run),
    }


def _provenance(config: Config, machines: Machines, workload: Workload) -> Summary:
    return {
        "what_if": what_if_text(config),
        "what_if_kernels": what_if_kernels(config),
        "seed": config.seed,
        "config_sha256": config_sha256(config),
        "workload_sha256": workload.sha256,
        "calibration_sha256": machines.calibration_sha256,
        "version": servescope_version(),
    }


def _ratio(amount: float, per: float) -> float | None:
    return amount / per if per else None
