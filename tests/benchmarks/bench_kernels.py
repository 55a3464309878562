"""Kernel events per second of the kernel fidelity; printed, not judged.

python -m tests.benchmarks.bench_kernels
"""

# ruff: noqa: T201  (printing is all it does)

from __future__ import annotations

import time

from sim.config_file import load_config
from sim.machine.streams import (
    COMMUNICATION,
    COMPUTE,
    HBM,
    LINK,
    Kernel,
    kernel,
    run_streams,
)
from sim.runner import prepare, run_prepared

CAPACITIES = (3_350_000_000_000, 450_000_000_000)


def main() -> None:
    """Three lists: in turn, side by side within the capacity, and over it; two runs."""
    for title, kernels in (
        ("one after the other", [_compute(2), _reduce()] * 50_000),
        ("two streams, enough for both", [_compute(1), _reduce()] * 50_000),
        ("two streams, HBM contended", [_compute(3), _reduce()] * 50_000),
    ):
        chained = title.startswith("one")
        listed = [
            k._replace(after=(1,) if chained and i else ())
            for i, k in enumerate(kernels)
        ]
        started = time.process_time()
        run_streams(listed, CAPACITIES)
        took = time.process_time() - started
        print(f"{title}: {len(listed) / took:,.0f} kernel events/s")
    for overlap in ("none", "two-batch"):
        settings = ["engine.fidelity=kernel", f"engine.overlap={overlap}"]
        prepared = prepare(load_config(None, ["workload.num_requests=60", *settings]))
        started = time.process_time()
        events = run_prepared(prepared).summary["kernel_events"]
        took = time.process_time() - started
        print(f"whole run, overlap {overlap}: {events / took:,.0f} kernel events/s")


def _compute(terabytes_per_s: int) -> Kernel:
    moved = terabytes_per_s * 10_000_000
    return kernel("experts", COMPUTE, 10_000, moved, ((HBM, 1),), CAPACITIES)


def _reduce() -> Kernel:
    uses = ((LINK, 1), (HBM, 2))
    return kernel("all_reduce", COMMUNICATION, 9_000, 3_000_000, uses, CAPACITIES)


if __name__ == "__main__":
    main()
