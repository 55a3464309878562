"""Latency metrics of a run, with the definitions of ``vllm bench serve``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.record_table import RecordTable
from sim.request import RequestRecord
from sim.token_gaps import ReplicaGaps, pooled_ms
from sim.units import NS_PER_MS
from sim.weighted import Weighted

Int64 = npt.NDArray[np.int64]
PERCENTILES = (5, 10, 25, 50, 75, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits a request must meet, each optional; ``itl_ms`` binds every gap."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    itl_ms: float | None = None
    e2el_ms: float | None = None


def token_times_ns(record: RequestRecord, decode_end_ns: Int64) -> Int64:
    """Times (int64 ns) at which each output token of a request left."""
    parts: list[Int64] = []
    for run in record.runs:
        parts.append(np.array([run.first_ns], dtype=np.int64))
        parts.append(decode_end_ns[run.start : run.stop])
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class LatencySample:
    """Latencies of the finished requests of a run.

    Attributes:
        ttft_ns: First token minus arrival, per request.
        e2el_ns: Last token minus arrival, per request.
        output_tokens: Tokens emitted, per request.
        worst_itl_ns: Largest gap between tokens, per request (0 for a single token).
        itl_ms: Every gap between output tokens, pooled over requests.
    """

    ttft_ns: Int64
    e2el_ns: Int64
    output_tokens: Int64
    worst_itl_ns: Int64
    itl_ms: Weighted

    @property
    def tpot_ms(self) -> npt.NDArray[np.float64]:
        """(last - first) / (tokens - 1) of each request with two tokens or more."""
        several = self.output_tokens > 1
        decode_ns = (self.e2el_ns - self.ttft_ns)[several]
        return decode_ns / (self.output_tokens[several] - 1) / 1e6


def latency_sample(
    records: Sequence[RequestRecord], decode_end_ns: Sequence[Sequence[int]]
) -> LatencySample:
    """Collect latencies; ``decode_end_ns`` holds each replica's decode end times."""
    table = RecordTable.of(records)
    finished = np.flatnonzero(table.known("finish_ns"))
    gaps = [ReplicaGaps(ends) for ends in decode_end_ns]
    replicas = table.column("replica")[finished].tolist()
    worst = [
        gaps[replica].add(table.runs(position))
        for replica, position in zip(replicas, finished.tolist(), strict=True)
    ]
    arrival_ns = table.column("arrival_ns")[finished]
    return LatencySample(
        ttft_ns=table.column("first_token_ns")[finished] - arrival_ns,
        e2el_ns=table.column("finish_ns")[finished] - arrival_ns,
        output_tokens=table.column("output_tokens")[finished],
        worst_itl_ns=np.array(worst, dtype=np.int64),
        itl_ms=pooled_ms(gaps),
    )


def meets_slo(sample: LatencySample, slo: Slo) -> npt.NDArray[np.bool_]:
    """Whether each finished request meets ALL limits (a single token has TPOT 0)."""
    decode_ns = sample.e2el_ns - sample.ttft_ns
    steps = np.maximum(sample.output_tokens - 1, 1)
    limits = (
        (sample.ttft_ns, slo.ttft_ms),
        (decode_ns / steps, slo.tpot_ms),
        (sample.worst_itl_ns, slo.itl_ms),
        (sample.e2el_ns, slo.e2el_ms),
    )
    met = np.ones(sample.ttft_ns.size, dtype=np.bool_)
    for values, limit_ms in limits:
        if limit_ms is not None:
            met &= values <= limit_ms * 1e6
    return met


def summarise(sample: Weighted, name: str) -> dict[str, float | None]:
    """Mean, median, std and percentiles (linear) under vLLM's key names.

    Sums are exact, so the bytes do not depend on the machine.
    """
    if not sample.size:
        keys = ["mean", "median", "std", *(f"p{p}" for p in PERCENTILES)]
        return {f"{key}_{name}_ms": None for key in keys}
    median, *points = sample.percentiles([50, *PERCENTILES])
    summary: dict[str, float | None] = {
        f"mean_{name}_ms": sample.mean(),
        f"median_{name}_ms": median,
        f"std_{name}_ms": sample.std(),
    }
    for percentile, value in zip(PERCENTILES, points, strict=True):
        summary[f"p{percentile}_{name}_ms"] = value
    return summary


def latency_metrics(sample: LatencySample) -> dict[str, float | None]:
    """All ``*_ttft_ms``, ``*_tpot_ms``, ``*_itl_ms`` and ``*_e2el_ms`` keys."""
    return {
        **summarise(Weighted.of(sample.ttft_ns / NS_PER_MS), "ttft"),
        **summarise(Weighted.of(sample.tpot_ms), "tpot"),
        **summarise(sample.itl_ms, "itl"),
        **summarise(Weighted.of(sample.e2el_ns / NS_PER_MS), "e2el"),
    }
