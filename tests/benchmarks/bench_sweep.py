"""Time of a sweep: in all, on one and two workers, and beside simulating; printed.

python -m tests.benchmarks.bench_sweep [POINTS]
"""

# ruff: noqa: T201  (printing is all it does)

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from sim.studies.study import make_study
from sim.studies.sweep import SweepOptions, SweepPlan, plan_sweep, sweep
from sim.studies.worker import simulate

_TARGET_S = 300.0  # of 1,000 points on two workers
_PAIR = 200  # points of the runs on one and two workers


def main() -> None:
    """Print times beside their targets."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    one, two = _sweep_s(_plan(_PAIR), 1), _sweep_s(_plan(_PAIR), 2)
    print(f"{_PAIR} points: {one:.1f} s on 1 worker, {two:.1f} s on 2")
    print(f"parallel efficiency: {100 * one / (2 * two):.0f} % (target >= 90)")
    plan = _plan(_PAIR)
    start = time.perf_counter()
    for point in plan.points:
        simulate(point.config)
    beside = (one - (time.perf_counter() - start)) / _PAIR
    print(f"overhead per point: {1e3 * beside:.1f} ms (target <= 20)")
    print(f"simulating takes {1e3 * (one / _PAIR - beside):.0f} ms per point")
    whole = _sweep_s(_plan(count), 2)
    scaled = _TARGET_S * count / 1000
    print(f"{count} points on 2 workers: {whole:.1f} s (target <= {scaled:.0f})")


def _plan(points: int) -> SweepPlan:
    """Half of each policy, 200 requests, rates below the knee, a seed per point."""
    vary = {
        "engine.scheduler": ["chunked-prefill", "layered-prefill"],
        "workload.request_rate": [1.0, 1.2],
        "workload.num_requests": [200],
        "seed": {"from": 0, "to": max(points // 4, 2) - 1, "step": 1},
    }
    return plan_sweep(make_study(vary))


def _sweep_s(plan: SweepPlan, jobs: int) -> float:
    """Seconds of a whole sweep into an empty folder, workers' start included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        sweep(plan, Path(folder), SweepOptions(jobs=jobs))
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
