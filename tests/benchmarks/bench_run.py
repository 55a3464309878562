"""Time per iteration of a whole run, checked and not; printed, not judged.

python -m tests.benchmarks.bench_run
"""

# ruff: noqa: T201  (printing is all it does)

from __future__ import annotations

import statistics
import time

from sim.build import build_cluster
from sim.config_file import load_config
from sim.runner import PreparedRun, prepare

_REPEATS = 7
_LOAD = ("workload.num_requests=300", "workload.request_rate=1.3")


def main() -> None:
    """Print the median of several runs of each scheduler, in an order that mixes."""
    cases = {
        name: prepare(load_config(None, (*_LOAD, f"engine.scheduler={name}")))
        for name in ("chunked-prefill", "layered-prefill")
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(_REPEATS):
        for name, prepared in cases.items():
            times[name].append(_us_per_iteration(prepared))
    for name, each in times.items():
        print(f"{name}: median {statistics.median(each):.2f} us, min {min(each):.2f}")


def _us_per_iteration(prepared: PreparedRun) -> float:
    workload = prepared.workload
    cluster = build_cluster(prepared.config, prepared.machine, workload)
    start = time.process_time()
    run = cluster.run(workload.requests)
    return 1e6 * (time.process_time() - start) / sum(len(log) for log in run.logs)


if __name__ == "__main__":
    main()
