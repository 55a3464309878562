"""How long a sweep would take, from one short pilot run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from joblib import cpu_count

from sim.config import Config
from sim.errors import ServescopeError
from sim.studies.worker import SweepPoint, simulate
from workloads.traces import read_trace

_PILOT_REQUESTS: Final = 50


def estimated_s(points: Sequence[SweepPoint], jobs: int | None = None) -> float | None:
    """Seconds for all points, or None if the pilot cannot run.

    The middle point is run with at most 50 requests; time is taken as proportional
    to requests, so points past saturation take longer than estimated.

    Args:
        points: What would run.
        jobs: Processes; None for one per core.
    """
    if not points:
        return 0.0
    config = points[len(points) // 2].config
    limit = min(_PILOT_REQUESTS, int(expected_requests(config)) or 1)
    workload = config.workload.model_copy(update={"num_requests": limit})
    pilot = config.model_copy(update={"workload": workload})
    try:
        simulate(pilot)  # imports and tables once, as a worker does
        start = time.perf_counter()
        simulate(pilot)
        took_s = time.perf_counter() - start
    except ServescopeError:
        return None
    requests = sum(expected_requests(point.config) for point in points)
    return took_s / limit * requests / min(jobs or cpu_count(), len(points))


def expected_requests(config: Config) -> float:
    """About how many requests a configuration sends."""
    workload = config.workload
    counts = [
        float(workload.num_requests or "inf"),
        workload.request_rate
        * workload.session_turns_mean
        * (workload.horizon_s or float("inf")),
    ]
    if workload.path is not None:
        counts = [counts[0], float(read_trace(workload.path).prompt_tokens.size)]
    return min(counts)
