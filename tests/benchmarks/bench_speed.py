"""Time and memory of whole simulations; printed, not judged.

One process per measurement, median of several; with ``--against`` another checkout of
the repository is measured in the same run, alternately, and the ratio printed::

    python -m tests.benchmarks.bench_speed
    git worktree add ../before HEAD~1
    python -m tests.benchmarks.bench_speed --against ../before --only W1,W3
    python -m tests.benchmarks.bench_speed --check --only W1,W3
    python -m tests.benchmarks.bench_speed --save    # tests/benchmarks/results.md

All cases take about half an hour, of which a million requests take most.

W1, W2 and W3 have the lengths, rates and deployment of the comparison of simulators
that servescope is measured against (Llama of 7-8 B on A100, chunk 512, 128 sequences);
``loop`` is the event loop alone, ``process`` everything from the start of Python.
"""

# ruff: noqa: T201  (printing is all it does)

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = Path(__file__).with_name("results.md")

_FROM: Final = 10_000
_FEWEST: Final = 2  # points that no line can miss

_LLAMA: Final = {
    "model.name": "meta-llama/Llama-3.1-8B",
    "cluster.gpu": "a100_sxm",
    "parallel.tensor_parallel_size": 1,
    "engine.scheduler": "chunked-prefill",
    "engine.max_num_batched_tokens": 512,
    "engine.max_num_seqs": 128,
    "engine.kv_cache_tokens": 118_784,
}
_AZURE: Final = {**_LLAMA, "workload.dataset": "azure-conv"}
_MAIN: Final = {
    "engine.scheduler": "layered-prefill",
    "calibration.profile": "layered-prefill-v1",
    "workload.request_rate": 1.5,
    "workload.duration_s": 600.0,
}


def _azure(requests: int, replicas: int, rate: float) -> dict[str, object]:
    return {
        **_AZURE,
        "cluster.gpus_per_node": replicas,
        "parallel.replicas": replicas,
        "workload.request_rate": rate,
        "workload.num_requests": requests,
    }


def _decodes(batch: int) -> dict[str, object]:
    """All at once, 4000 tokens each: nearly nothing but decodes."""
    return {
        **_LLAMA,
        "cluster.hbm_capacity_scale": 20.0,  # room for the largest batch
        "engine.max_num_seqs": batch,
        "engine.max_model_len": 8192,
        "engine.max_num_batched_tokens": 8192,
        "engine.kv_cache_tokens": 8192 * batch,
        "workload.dataset": "random",
        "workload.random_input_len": 16,
        "workload.random_output_len": 4000,
        "workload.random_range_ratio": 0.0,
        "workload.request_rate": "inf",
        "workload.num_requests": batch,
    }


_FLEET: Final = {
    "model.name": "meta-llama/Llama-3.1-70B",
    "cluster.nodes": 64,
    "cluster.gpus_per_node": 8,
    "parallel.tensor_parallel_size": 8,
    "parallel.replicas": 64,
    "parallel.router": "least-outstanding-requests",
    "engine.scheduler": "chunked-prefill",
    "workload.dataset": "sharegpt",
    "workload.request_rate": 1200.0,
    "workload.num_requests": 1_000_000,
}
"""512 GPUs."""

_REQUESTS: Final = "requests-"
"""Cases that only keep a row per request, to see how time and memory grow."""
_LONG: Final = 100_000
_LEAN: Final = (_REQUESTS, "fleet")
_SIZES: Final = (1_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)

CASES: Final[Mapping[str, dict[str, object]]] = {
    "W1": {
        **_LLAMA,
        "workload.dataset": "random",
        "workload.random_input_len": 2048,
        "workload.random_output_len": 512,
        "workload.random_range_ratio": 0.0,
        "workload.request_rate": 0.5,
        "workload.num_requests": 128,
    },
    "W2": _azure(512, 1, 6.45),
    "W3": _azure(10_000, 4, 16.0),
    "main-layered": _MAIN,
    "main-chunked": {**_MAIN, "engine.scheduler": "chunked-prefill"},
    **{f"decode-{batch}": _decodes(batch) for batch in (1, 32, 256, 1024)},
    **{f"layer-groups-{n}": {**_MAIN, "engine.num_layer_groups": n} for n in (4, 48)},
    **{f"experts-{n}": {**_MAIN, "model.num_experts": n} for n in (16, 64)},
    **{f"{_REQUESTS}{n}": _azure(n, 4, 12.0) for n in _SIZES},
    "fleet": _FLEET,
    **{f"replicas-{n}": _azure(2_000, n, 4.0 * n) for n in (1, 2, 4, 8)},
}


def measure(name: str, *, check: bool = False) -> dict[str, float]:
    """Run one case in this process, with every invariant watched or none."""
    try:  # (imports are measured)
        from sim.build_cluster import build_cluster  # noqa: PLC0415
    except ImportError:  # an older checkout
        from sim.build import build_cluster  # noqa: PLC0415
    from sim.config_file import load_config  # noqa: PLC0415
    from sim.results import run_result  # noqa: PLC0415
    from sim.runner import prepare  # noqa: PLC0415

    prepared = prepare(load_config(None, (), CASES[name]))
    config, machine, workload = prepared.config, prepared.machine, prepared.workload
    kept: dict[str, Any] = {}
    lean: dict[str, Any] = {}
    if name.startswith(_LEAN):
        from sim.recording import Recording  # noqa: PLC0415

        kept, lean = {"recording": Recording.REQUESTS}, {"detailed": False}
    cluster = build_cluster(config, machine, workload, **lean)
    watched = {}
    if check:
        from sim.checks import run_checker  # noqa: PLC0415

        watched = {"observer": run_checker()}
    start = time.perf_counter()
    run = cluster.run(workload.requests, **watched)
    loop_s = time.perf_counter() - start
    run_result(config, machine, workload, run, **kept)
    return {
        "loop_s": loop_s,
        "result_s": time.perf_counter() - start - loop_s,
        "iterations": sum(len(log) for log in run.logs),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _process(name: str, checkout: Path, *words: str) -> dict[str, float]:
    """Run one case in a process of its own, on the code of a checkout."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--one", name, *words],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured | {"process_s": time.perf_counter() - start}


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def _row(name: str, here: dict[str, float], before: dict[str, float] | None) -> str:
    rate = here["iterations"] / here["loop_s"]
    cells: list[Any] = [
        name,
        f"{here['loop_s']:.3f}",
        f"{here['process_s']:.2f}",
        f"{here['iterations']:.0f}",
        f"{rate:,.0f}",
        f"{here['peak_mb']:.0f}",
    ]
    if before is not None:
        cells.append(f"{before['loop_s'] / here['loop_s']:.2f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--only", help="cases, separated by commas")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout, for ratios")
    parser.add_argument(
        "--check", action="store_true", help="watch every invariant; ratio to no check"
    )
    parser.add_argument("--save", action="store_true", help="also write results.md")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, check=options.check)))
        return
    names = options.only.split(",") if options.only else list(CASES)
    heads = ["case", "loop, s", "process, s", "iterations", "iterations/s", "peak, MB"]
    watch = ("--check",) if options.check else ()
    heads += ["times faster than the other"] if options.against or watch else []
    checkout = options.against.resolve() if options.against else ROOT
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    print("\n".join(lines))
    grown: dict[int, float] = {}
    for name in names:
        here: list[dict[str, float]] = []
        before: list[dict[str, float]] = []
        for _ in range(1 if is_long(name) else options.repeats):
            here.append(_process(name, ROOT, *watch))
            if options.against or watch:
                before.append(_process(name, checkout))
        other = _medians(before) if before else None
        median = _medians(here)
        if name.startswith(_REQUESTS):
            grown[int(name.removeprefix(_REQUESTS))] = median["loop_s"]
        lines.append(_row(name, median, other))
        print(lines[-1], flush=True)
    if len(grown) > _FEWEST:
        lines += ["", _growth(grown)]
        print(lines[-1])
    if options.save:
        RESULTS.write_text("\n".join([_machine(options.repeats), "", *lines, ""]))


def is_long(name: str) -> bool:
    """Of minutes, which are measured once."""
    requests = CASES[name].get("workload.num_requests", 0)
    return isinstance(requests, int) and requests >= _LONG


def _growth(grown: Mapping[int, float]) -> str:
    """How well a straight line through the origin fits time over requests."""
    pairs = [(n, s) for n, s in grown.items() if n >= _FROM]
    n, seconds = zip(*pairs, strict=True)
    fit = statistics.linear_regression(n, seconds, proportional=True)
    mean = statistics.fmean(seconds)
    left = sum((s - fit.slope * k) ** 2 for k, s in pairs)
    r2 = 1 - left / sum((s - mean) ** 2 for s in seconds)
    return (
        f"From {_FROM:,} requests on, {1e3 * fit.slope:.3f} ms per request;"
        f" R^2 of a straight line through the origin: {r2:.4f}."
    )


def _machine(repeats: int) -> str:
    return (
        f"Medians of {repeats} (of one from {_LONG:,} requests on)"
        " by `python -m tests.benchmarks.bench_speed --save` on"
        f" {platform.machine()}, {os.cpu_count()} cores ({_cpu()}), Python"
        f" {platform.python_version()}, {platform.system()}."
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else "unknown CPU"


if __name__ == "__main__":
    main()
