"""The files of a run against the run itself: identities, sums, bounds, provenance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sim.build_pools import Machines
from sim.config_text import config_sha256
from sim.errors import InvariantError
from sim.policies import policy_label
from sim.request import RequestRecord
from sim.results import RunResult
from sim.shell.cluster import ClusterRun
from sim.units import NS_PER_MS, NS_PER_S
from sim.version import servescope_version
from workloads.workload import Workload

Int64 = npt.NDArray[np.int64]
_RELATIVE: Final = 1e-9
"""Of sums of floats that were added up in another order."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A run, what it ran on, and the result that was worked out from it."""

    machines: Machines
    workload: Workload
    run: ClusterRun
    result: RunResult

    def served(self) -> Iterator[tuple[int, RequestRecord]]:
        """Position and record of each request that was not rejected."""
        for position, record in enumerate(self.run.records):
            if record.finish_ns is not None:
                yield position, record


def metric_identities(done: Finished) -> None:
    """E2E = TTFT + sum of ITL, per request in integers; TPOT is their mean."""
    ends = [np.asarray(log.decode_end_ns, dtype=np.int64) for log in done.run.logs]
    rows, limits = done.result.requests, done.result.config.slo
    columns = {name: rows[name].tolist() for name in rows}
    gaps_ns = 0
    for position, record in done.served():
        row = {name: values[position] for name, values in columns.items()}
        times_ns = _token_times_ns(record, ends[record.replica])
        gaps = np.diff(times_ns)
        gaps_ns += int(gaps.sum())
        ttft_ns = int(times_ns[0]) - record.arrival_ns
        ms = {
            "ttft_ms": ttft_ns / NS_PER_MS,
            "e2el_ms": (ttft_ns + int(gaps.sum())) / NS_PER_MS,
            "tpot_ms": _ratio(int(gaps.sum()), gaps.size) / NS_PER_MS,
            "max_itl_ms": int(gaps.max()) / NS_PER_MS if gaps.size else math.nan,
        }
        for name, value in ms.items():
            if not _close(row[name], value):
                raise _of_request(
                    record, f"{name} = {row[name]}, by its tokens {value}"
                )
        met = all(
            limit is None or math.isnan(ms[name]) or ms[name] <= limit
            for name, limit in (
                ("ttft_ms", limits.ttft_ms),
                ("tpot_ms", limits.tpot_ms),
                ("max_itl_ms", limits.itl_ms),
                ("e2el_ms", limits.e2el_ms),
            )
        )
        if met != row["met_slo"]:
            raise _of_request(record, f"met_slo = {row['met_slo']}, by its times {met}")
    _check_means(done, gaps_ns)


def _check_means(done: Finished, gaps_ns: int) -> None:
    """Means, attainment and percentiles of the summary, from the table of requests."""
    rows, summary = done.result.requests, done.result.summary
    gaps = summary["total_output_tokens"] - summary["completed"]
    means = {
        name: _mean([v for v in rows[f"{name}_ms"].tolist() if not math.isnan(v)])
        for name in ("ttft", "tpot", "e2el")
    }
    means["itl"] = gaps_ns / gaps / NS_PER_MS if gaps else None
    for name, mean in means.items():
        _same("metric-identities", f"mean_{name}_ms", summary, mean)
        low, middle, high = (summary[f"{p}_{name}_ms"] for p in ("p5", "median", "p99"))
        if mean is not None and not low <= middle <= high:
            raise InvariantError(
                "metric-identities", f"{name}: p5 {low}, p50 {middle}, p99 {high}"
            )
    if summary["slo_attainment"] is not None:
        met = int(rows["met_slo"].sum())
        _same("metric-identities", "slo_attainment", summary, met / len(rows))


def run_totals(done: Finished) -> None:
    """The summary is the sum of its files; energy is the integral of power."""
    rows, summary = done.result.requests, done.result.summary
    iterations, series = done.result.iterations, done.result.timeseries
    finished = rows["finish_ns"].notna()
    end_ns = int(iterations["end_ns"].max()) if len(iterations) else 0
    off = [s.within_ns(end_ns) for own in done.run.fleet.off for s in own]
    idle_j = _idle_j(done, end_ns, sum(b - a for a, b in off))
    # Bins of one second, but the last, which ends with the run.
    starts_ns = (series["time_s"] * NS_PER_S).tolist()
    widths = np.diff([*starts_ns, end_ns]) / NS_PER_S
    kinds = ("expert_weight", "other_weight", "kv", "activation")
    expected: dict[str, float] = {
        "num_prompts": len(done.workload.requests),
        "completed": int(finished.sum()),
        "failed": len(rows) - int(finished.sum()),
        "rejected": int((rows["rejected"] != "").sum()),
        "total_input_tokens": int(rows["prompt_tokens"][finished].sum()),
        "total_output_tokens": int(rows["output_tokens"].sum()),
        "preemptions": int(rows["preemptions"].sum()),
        "retries": int(rows["retries"].sum()),
        "iterations": len(iterations),
        "duration": end_ns / NS_PER_S,
        "energy_idle_j": idle_j,
        "energy_j": math.fsum(iterations["energy_j"].tolist()) + idle_j,
        "hbm_bytes": sum(summary[f"{kind}_bytes"] for kind in kinds),
    }
    if done.run.swaps:
        moved = {
            way: sum(sum(getattr(log, f"blocks_{way}")) for log in done.run.swaps)
            for way in ("out", "in")
        }
        # What a failing replica's host held does not come back.
        if not 0 <= moved["out"] - moved["in"] <= moved["out"] * summary["retries"]:
            raise InvariantError(
                "run-totals", f"KV blocks to and from the host: {moved}"
            )
        expected["swapped_in_bytes"] = (
            summary["swapped_out_bytes"] * moved["in"] // max(moved["out"], 1)
        )
    for name, value in expected.items():
        _same("run-totals", name, summary, value)
    if done.machines.pools:
        _pools_sum_up(done)
    power_j = math.fsum((series["power_w"].to_numpy() * widths).tolist())
    _same("run-totals", "energy_j", summary, power_j)
    for name, amount in (
        ("request_throughput", summary["completed"]),
        ("output_throughput", summary["total_output_tokens"]),
        ("mean_power_w", summary["energy_j"]),
    ):
        rate = amount / summary["duration"] if summary["duration"] else None
        _same("run-totals", name, summary, rate)


def _idle_j(done: Finished, end_ns: int, off_ns: int) -> float:
    """Energy of every replica outside its iterations, at its own boards' power."""
    iterations = done.result.iterations
    busy_ns = (iterations["end_ns"] - iterations["start_ns"]).groupby(
        iterations["replica"]
    )
    spent = {replica: int(part.sum()) for replica, part in busy_ns}
    powers = [m.power for m in done.machines.of_replicas(len(done.run.logs))]
    each = [p.idle_j(end_ns - spent.get(r, 0)) for r, p in enumerate(powers)]
    return math.fsum(each) - powers[0].idle_j(off_ns)


def _pools_sum_up(done: Finished) -> None:
    """Requests, GPUs and energy of pools are those of the run, each counted once."""
    summary, parts = done.result.summary, done.machines.pools
    names = [f"pool_{part.pool.name}" for part in parts]
    whole = sum(1 for part in parts if part.pool.role != "decode")
    served = sum(summary[f"{n}_requests"] for n in names[:whole])
    for key, value in (
        ("num_gpus", sum(summary[f"{n}_num_gpus"] for n in names)),
        ("energy_j", math.fsum(summary[f"{n}_energy_j"] for n in names)),
        ("completed", served),
    ):
        _same("run-totals", key, summary, value)


def utilisation(done: Finished) -> None:
    """Shares lie between 0 and 1, power between nothing and the boards' cap."""
    summary, series = done.result.summary, done.result.timeseries
    shares = {
        name: [value]
        for name, value in summary.items()
        if value is not None
        and name.endswith(("_fraction", "attainment", "utilisation"))
    }
    shares["kv_cache_usage_perc"] = series["kv_cache_usage_perc"].tolist()
    powers = [m.power for m in done.machines.of_replicas(len(done.run.logs))]
    cap_w = sum(power.num_gpus * power.cap_w for power in powers)
    shares["power_w / cap"] = (series["power_w"] / cap_w).tolist()
    for name, values in shares.items():
        for value in values:
            if not 0 <= value <= 1 + _RELATIVE:
                raise InvariantError("utilisation", f"{name} = {value}")


def provenance(done: Finished) -> None:
    """The summary names what ran: configuration, requests, timings, seed, version."""
    config, summary = done.result.config, done.result.summary
    expected = {
        "seed": config.seed,
        "scheduler": policy_label(config),
        "config_sha256": config_sha256(config),
        "workload_sha256": done.workload.sha256,
        "calibration_sha256": done.machines.calibration_sha256,
        "version": servescope_version(),
    }
    for name, value in expected.items():
        if summary[name] != value:
            raise InvariantError(
                "provenance", f"{name} = {summary[name]}, ran with {value}"
            )


RESULT_CHECKS: Mapping[str, Callable[[Finished], None]] = MappingProxyType(
    {
        "metric-identities": metric_identities,
        "run-totals": run_totals,
        "utilisation": utilisation,
        "provenance": provenance,
    }
)
"""Every law of a result, by name."""


def check_result(done: Finished) -> None:
    """Hold every law of results against one.

    Raises:
        InvariantError: If one is broken.
    """
    for check in RESULT_CHECKS.values():
        check(done)


def _token_times_ns(record: RequestRecord, ends: Int64) -> Int64:
    parts = [
        part
        for run in record.runs
        for part in (np.array([run.first_ns]), ends[run.start : run.stop])
    ]
    return np.concatenate(parts)


def _of_request(record: RequestRecord, problem: str) -> InvariantError:
    return InvariantError(
        "metric-identities",
        problem,
        record.finish_ns,
        record.request.id,
        record.replica,
    )


def _same(
    name: str, key: str, summary: Mapping[str, Any], expected: float | None
) -> None:
    """Check a number of the summary: integers exactly, others to rounding."""
    value = summary[key]
    exact = isinstance(value, int) and isinstance(expected, int)
    if value != expected if exact or expected is None else not _close(value, expected):
        raise InvariantError(name, f"{key} = {value}, from the files {expected}")


def _close(a: float, b: float) -> bool:
    both_missing = math.isnan(a) and math.isnan(b)
    return both_missing or math.isclose(a, b, rel_tol=_RELATIVE)


def _ratio(amount: int, per: int) -> float:
    return amount / per if per else math.nan


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
