"""The part of a run in which a fixed batch is kept full, as ML.ENERGY measures it.

Method: ML.ENERGY benchmark v3 counts from the B-th first token, B = max_num_seqs, to
the start of the drain, when nothing is left to take the place of a finished request.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sim.errors import ConfigError
from sim.results import RunResult
from sim.units import NS_PER_MS, NS_PER_S

Int64 = npt.NDArray[np.int64]


def steady_metrics(result: RunResult, batch: int) -> dict[str, float]:
    """Metrics of the steady state of a burst on one replica.

    Every decoding request gets a token in every iteration that decodes, so the gap
    between two such iterations is that many inter-token latencies (preempted requests
    left aside).

    Args:
        result: A run of more than ``batch`` requests that wait from the start.
        batch: Requests that run at once.

    Returns:
        ``median_itl_ms``, ``output_throughput`` (tokens/s), ``power_per_gpu_w`` and
        ``energy_per_output_token_j`` (prefill energy included).

    Raises:
        ConfigError: If the run has no steady state.
    """
    first_ns = np.sort(result.requests["first_token_ns"].to_numpy(dtype=np.int64))
    finish_ns = np.sort(result.requests["finish_ns"].to_numpy(dtype=np.int64))
    begin_ns = int(first_ns[batch - 1])
    drain_ns = int(finish_ns[finish_ns.size - batch])
    log = result.iterations
    inside = log[(log["start_ns"] >= begin_ns) & (log["end_ns"] <= drain_ns)]
    decodes = inside[inside["decode_tokens"] > 0]
    if len(decodes) < 2:
        raise ConfigError(
            f"{finish_ns.size} requests at max_num_seqs = {batch}: the first request"
            " leaves before the batch is full; allowed: longer outputs"
        )
    ends, tokens = _column(decodes, "end_ns"), _column(decodes, "decode_tokens")
    start_ns, end_ns = int(_column(inside, "start_ns")[0]), int(ends[-1])
    seconds = (end_ns - start_ns) / NS_PER_S
    firsts = np.count_nonzero((first_ns > start_ns) & (first_ns <= end_ns))
    output_tokens = int(tokens.sum() + firsts)
    energy_j = math.fsum(inside.loc[inside["end_ns"] <= end_ns, "energy_j"])
    return {
        "median_itl_ms": weighted_median(np.diff(ends), tokens[1:]) / NS_PER_MS,
        "output_throughput": output_tokens / seconds,
        "power_per_gpu_w": energy_j / seconds / result.summary["num_gpus"],
        "energy_per_output_token_j": energy_j / output_tokens,
    }


def weighted_median(values: Int64, weights: Int64) -> float:
    """Lower median of values that each occur ``weights`` times; exact in integers."""
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(2 * upto, upto[-1])])


def _column(frame: object, name: str) -> Int64:
    return np.asarray(frame[name], dtype=np.int64)  # type: ignore[index]
