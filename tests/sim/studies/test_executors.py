"""The same study on this machine, on a Dask and on a Ray cluster: the same bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sim.errors import ConfigError
from sim.studies.executors import workers
from sim.studies.study import make_study
from sim.studies.sweep import SweepOptions, plan_sweep, sweep
from tests.sim.studies.test_sweep import digests

PLAN = {"engine.scheduler": ["orca", "layered-prefill"], "seed": [0, 1]}
SMALL = {"workload.num_requests": [3], **PLAN}
QUIET = "ignore::Warning"  # of the clusters' own libraries


def same_as_local(tmp_path: Path, executor: str) -> None:
    plan = plan_sweep(make_study(SMALL))
    sweep(plan, tmp_path / "local", SweepOptions(jobs=1))
    sweep(plan, tmp_path / "there", SweepOptions(executor=executor))
    assert digests(tmp_path / "local") == digests(tmp_path / "there")


@pytest.mark.filterwarnings(QUIET)
def test_dask(tmp_path: Path) -> None:
    """Two worker processes, reached by address."""
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address.removeprefix("tcp://")
        same_as_local(tmp_path, f"dask://{address}")


@pytest.mark.long
@pytest.mark.filterwarnings(QUIET)
def test_ray(tmp_path: Path) -> None:
    """A cluster on this machine, found by Ray itself."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    environment = {"env_vars": {"PYTHONPATH": ":".join(filter(None, sys.path))}}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env=environment)
    try:
        same_as_local(tmp_path, "ray")
    finally:
        ray.shutdown()


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("executor", ["dask://127.0.0.1:1", "ray"])
def test_a_cluster_that_is_not_there(executor: str) -> None:
    """One clear line, whether the extra is there or not."""
    pytest.importorskip(executor.partition(":")[0])
    words = "no cluster reached"
    with pytest.raises(ConfigError, match=words), workers(executor, None, 1):
        pass


def test_an_unknown_executor() -> None:
    """With what is allowed."""
    with pytest.raises(ConfigError, match="dask://HOST:PORT"), workers("k8s", None, 1):
        pass


@pytest.mark.parametrize("extra", ["dask", "ray"])
def test_a_missing_extra(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says what to install."""
    for name in ("distributed", "ray"):
        monkeypatch.setitem(sys.modules, name, None)
    executor = {"dask": "dask://h:1", "ray": "ray"}[extra]
    with (
        pytest.raises(ConfigError, match=rf"servescope\[{extra}\]"),
        workers(executor, None, 1),
    ):
        pass
