"""The cases of ``bench_speed`` under pytest-benchmark: spread, history, comparison.

    pip install -e '.[test,bench]'
    python -m pytest tests/benchmarks/bench_cases.py --benchmark-autosave
    python -m pytest tests/benchmarks/bench_cases.py --benchmark-compare -k W1

``bench_speed`` has what this has not: memory, growth up to a million requests, and two
revisions measured in turn in one run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sim.build_cluster import build_cluster
from sim.config_file import load_config
from sim.runner import prepare
from sim.shell.cluster import Cluster, ClusterRun
from tests.benchmarks.bench_speed import CASES, ROOT, is_long

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

_ROUNDS = 5


@pytest.mark.parametrize("name", [name for name in CASES if not is_long(name)])
def test_event_loop(benchmark: BenchmarkFixture, name: str) -> None:
    """The loop alone, as a fresh cluster goes through it."""
    prepared = prepare(load_config(None, (), CASES[name]))
    requests = prepared.workload.requests

    def fresh() -> tuple[tuple[Cluster], dict[str, object]]:
        cluster = build_cluster(prepared.config, prepared.machine, prepared.workload)
        return (cluster,), {}

    def loop(cluster: Cluster) -> ClusterRun:
        return cluster.run(requests)

    run = benchmark.pedantic(loop, setup=fresh, rounds=_ROUNDS)
    iterations = sum(len(log) for log in run.logs)
    benchmark.extra_info["iterations_per_s"] = iterations / benchmark.stats["median"]
    assert all(record.finish_ns is not None for record in run.records)


@pytest.mark.parametrize(
    "words", [("--help",), ("run", "--set", "workload.num_requests=8")], ids=" ".join
)
def test_process(
    benchmark: BenchmarkFixture, words: tuple[str, ...], tmp_path: Path
) -> None:
    """From the start of Python to its end."""
    command = "from sim.cli import main; main()"
    done = benchmark.pedantic(
        subprocess.run,
        args=([sys.executable, "-c", command, *words],),
        kwargs={
            "cwd": tmp_path,
            "env": os.environ | {"PYTHONPATH": str(ROOT)},
            "capture_output": True,
            "check": True,
        },
        rounds=_ROUNDS,
    )
    assert done.returncode == 0
