"""A placement fitted to other routing than the run's: the key against its parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.build import build_machine
from sim.build_placement import Routing, place_experts, rank_loads, topology_of
from sim.config import Config
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.placed_rows import PlacedRowCosts
from sim.routing_stats import RoutingStats
from workloads.routing.importers import read_routing
from workloads.routing.importers.options import ImportOptions
from workloads.routing.importers.stats_json import write_stats
from workloads.routing.presets import preset

EP4 = (
    *("model.name=Mixtral-8x7B", "cluster.gpus_per_node=8"),
    *("parallel.tensor_parallel_size=4", "parallel.expert_parallel_size=4"),
    *("moe.communication=ep_home", "moe.placement=lpt"),
)


@pytest.fixture
def domains(tmp_path: Path) -> tuple[Path, Path]:
    """Two domains of one model: popular in one what is not in the other."""
    rng = np.random.default_rng(0)
    load = rng.dirichlet(np.full(8, 2.0), size=32)
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, each in zip(paths, (load, load[:, ::-1]), strict=True):
        write_stats(path, RoutingStats(np.ascontiguousarray(each), 2))
    return paths


def _config(domains: tuple[Path, Path], *keys: str) -> Config:
    return load_config(None, [*EP4, f"moe.statistics={domains[1]}", *keys])


def _loads(config: Config) -> np.ndarray:
    rows = build_machine(config).pricer.rows
    assert isinstance(rows, PlacedRowCosts)
    loads: np.ndarray = rows._placed._loads.load  # type: ignore[attr-defined]
    return loads


def test_fitted_on_one_domain_it_is_judged_on_the_other(
    domains: tuple[Path, Path],
) -> None:
    """The ranks' loads are those of A's placement under B's routing."""
    at_home = _config(domains)
    across = _config(domains, f"moe.fit_statistics={domains[0]}")
    a, b = (read_routing(path, ImportOptions(top_k=2)) for path in domains)
    fitted, _ = place_experts(across, Routing(a, 40.0))
    expected = rank_loads(fitted, b, topology_of(across)).load
    assert _loads(across) == pytest.approx(expected)
    assert _loads(across).max(axis=1).mean() > _loads(at_home).max(axis=1).mean()


def test_fitted_to_its_own_statistics_nothing_changes(
    domains: tuple[Path, Path],
) -> None:
    own = _config(domains, f"moe.fit_statistics={domains[1]}")
    assert np.array_equal(_loads(own), _loads(_config(domains)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["moe.placement=none"], "moe.placement"),
        (["moe.placement=alf_bias"], "another strategy with moe.fit_statistics"),
        (["moe.rebalance_interval=10"], "moe.rebalance_interval"),
    ],
)
def test_what_does_not_go_with_it(
    domains: tuple[Path, Path], keys: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _config(domains, f"moe.fit_statistics={domains[0]}", *keys)


def test_statistics_of_another_model_are_refused(
    domains: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "other.json"
    write_stats(path, preset("OLMoE-1B-7B").stats(domain="c4", tokens=64))
    config = _config(domains, f"moe.fit_statistics={path}")
    with pytest.raises(ConfigError, match=r"fit_statistics.*must be of 32 layers"):
        build_machine(config)
