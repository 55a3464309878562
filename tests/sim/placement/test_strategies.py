"""Placement strategies against planted optima, integer programs and brute force."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from sim.errors import ConfigError
from sim.placement import PLACEMENTS
from sim.placement.alf_bias import max_violation, update_bias
from sim.placement.bounds import affinity_bound
from sim.placement.dispatch import DISPATCHES
from sim.placement.eplb import rebalance
from sim.placement.metrics import evaluate, gpu_loads, par
from sim.placement.moetuner import bottleneck
from sim.placement.placement import ExpertPlacement, from_gpu_of, migrated_slots
from sim.placement.solve import PlacementResult, solve
from sim.placement.strategy import PlacementOptions
from sim.placement.topology import EpTopology
from sim.routing_stats import RoutingStats
from workloads.routing.choose import choose
from workloads.routing.importers import read_routing
from workloads.routing.markov import planted_markov
from workloads.routing.measure import measure
from workloads.routing.popularity import dirichlet_load
from workloads.routing.presets import preset


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _solve(
    name: str, stats: RoutingStats, gpus: int, per_node: int = 8, **options: object
) -> PlacementResult:
    return solve(
        name,
        stats,
        EpTopology(gpus, min(per_node, gpus)),
        PlacementOptions(**options),  # type: ignore[arg-type]
        rng=_rng(),
    )


@pytest.fixture(scope="module")
def qwen() -> RoutingStats:
    return preset("Qwen3-30B-A3B").stats()


@pytest.mark.parametrize(
    "strength",
    [0.3, *(pytest.param(s, marks=pytest.mark.long) for s in (0.1, 0.6))],
)
def test_exflow_finds_planted_affinity(strength: float) -> None:
    load = np.full((48, 128), 1 / 128)
    stats = planted_markov(_rng(1), load, 8, strength, 8).stats
    result = _solve("exflow", stats, 8)
    assert result.metrics.affinity == pytest.approx(
        strength + (1 - strength) / 8, abs=0.005
    )
    assert 0.0 <= result.gap < 0.005
    assert result.upper_bound >= result.objective


@pytest.mark.long
@pytest.mark.parametrize(("gpus", "crossing"), [(4, 0.564), (8, 0.715)])
def test_mixtral_reaches_the_proven_optimum_and_the_published_share(
    gpus: int, crossing: float
) -> None:
    """ExFlow's repository: 56.4 % of hops cross on 4 GPUs, 71.5 % on 8."""
    stats = preset("Mixtral-8x7B").stats(groups=gpus)
    heuristic = _solve("exflow", stats, gpus)
    proven = _solve("exflow", stats, gpus, solver="milp", time_limit_s=120.0)
    assert proven.gap < 1e-3
    assert heuristic.objective == pytest.approx(proven.objective, abs=1e-6)
    assert heuristic.metrics.cross_gpu_share == pytest.approx(crossing, abs=0.015)


def test_heuristic_is_optimal_on_unplanted_chains() -> None:
    """Without planted structure, where no bound of ours is tight."""
    rng = _rng(5)
    joint = rng.gamma(0.5, size=(2, 8, 8))
    joint /= joint.sum(axis=(1, 2), keepdims=True)
    stats = RoutingStats(np.full((3, 8), 1 / 8), 1, joint)
    heuristic = _solve("exflow", stats, 2)
    proven = _solve("exflow", stats, 2, solver="milp", time_limit_s=120.0)
    assert proven.gap < 1e-3
    assert heuristic.objective >= proven.objective - 1e-6
    assert affinity_bound(joint, 2) >= proven.objective - 1e-9


def test_bound_holds_against_all_placements() -> None:
    rng = _rng(8)
    halves = [
        np.array([g in half for g in range(4)])
        for half in itertools.combinations(range(4), 2)
    ]
    for _ in range(30):
        joint = rng.gamma(0.4, size=(1, 4, 4))
        joint /= joint.sum()
        best = max(
            float(joint[0][np.equal.outer(first, second)].sum())
            for first in halves
            for second in halves
        )
        assert affinity_bound(joint, 2) >= best - 1e-12


def test_lpt_balances_real_and_preset_popularity(qwen: RoutingStats) -> None:
    assert _solve("lpt", qwen, 8).metrics.load_par <= 1.001
    path = os.environ.get("SERVESCOPE_QWEN3_HEAT")
    if path is not None:
        heat = read_routing(Path(path))
        assert _solve("lpt", heat, 8).metrics.load_par <= 1.001


@pytest.mark.long
def test_joint_keeps_affinity_and_balance_that_affinity_alone_loses(
    qwen: RoutingStats,
) -> None:
    linear, exflow, joint = (_solve(n, qwen, 8) for n in ("linear", "exflow", "joint"))
    assert exflow.metrics.load_par > linear.metrics.load_par > joint.metrics.load_par
    assert joint.metrics.load_par <= 1.05
    assert joint.metrics.affinity >= 0.80 * exflow.metrics.affinity


@pytest.mark.long
def test_joint_keeps_four_fifths_of_the_affinity_of_sampled_routing() -> None:
    """Routing as the router gives it; the preset's, above, is scaled to be more
    skewed."""
    router = preset("Qwen3-30B-A3B").router(0)
    stats = measure(router.route(_rng(3), np.full(32, 64)), 128)
    exflow, joint = (_solve(name, stats, 8) for name in ("exflow", "joint"))
    assert joint.metrics.load_par <= 1.05
    assert joint.metrics.affinity >= 0.80 * exflow.metrics.affinity


@pytest.mark.long
def test_coactivation_sends_tokens_to_fewer_gpus(qwen: RoutingStats) -> None:
    linear, together = (_solve(n, qwen, 8) for n in ("linear", "coactivation"))
    assert linear.metrics.coactivation is not None
    assert together.metrics.coactivation is not None
    assert together.metrics.coactivation > 2 * linear.metrics.coactivation
    assert together.metrics.dispatch_sends < linear.metrics.dispatch_sends
    assert together.upper_bound >= together.objective


def test_eplb_equals_the_published_golden_vector() -> None:
    """README of deepseek-ai/EPLB (MIT)."""
    weight = np.array(
        [
            [90.0, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
            [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
        ]
    )
    table = rebalance(weight, 16, groups=4, nodes=2, gpus=8)
    assert table.tolist() == [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]


def test_copies_lift_the_limit_of_the_busiest_expert() -> None:
    load = preset("Qwen3-30B-A3B").load(0)
    stats = RoutingStats(load, 8)
    without = _solve("eplb", stats, 32).metrics.load_par
    with_copies = _solve(
        "eplb", stats, 32, redundant_experts=32, hierarchy="flat"
    ).metrics.load_par
    assert without > 1.3
    assert with_copies < 1.05


def test_bottleneck_mapping_equals_brute_force() -> None:
    rng = _rng(3)
    for size in (2, 3, 4, 5):
        for _ in range(15):
            flow = rng.gamma(0.5, size=(size, size))
            worst, to_first = bottleneck(flow)
            best = min(
                max(
                    flow[c, d]
                    for c in range(size)
                    for d in range(size)
                    if order[d] != c
                )
                for order in itertools.permutations(range(size))
            )
            assert worst == pytest.approx(best)
            assert sorted(to_first) == list(range(size))


def test_moetuner_balances_and_is_as_good_as_its_printed_programs() -> None:
    stats = preset("Mixtral-8x7B").stats(groups=4)
    ours = _solve("moetuner", stats, 4)
    printed = _solve("moetuner", stats, 4, solver="milp", time_limit_s=60.0)
    assert ours.gap < 1e-9
    assert ours.metrics.load_par <= printed.metrics.load_par + 1e-3
    assert ours.metrics.worst_link <= printed.metrics.worst_link + 0.01
    assert ours.metrics.worst_link < _solve("linear", stats, 4).metrics.worst_link


@pytest.mark.long
def test_staging_keeps_more_moves_in_the_node() -> None:
    stats = preset("OLMoE-1B-7B").stats(tokens=1024)
    flat = _solve("exflow", stats, 8, 4, hierarchy="flat")
    staged = _solve("exflow", stats, 8, 4, hierarchy="staged")
    halved = _solve("exflow", stats, 8, 4, hierarchy="bipart")
    assert staged.metrics.cross_node_share < flat.metrics.cross_node_share
    assert staged.metrics.affinity > 0.85 * flat.metrics.affinity
    assert halved.metrics.affinity > 0.85 * flat.metrics.affinity


def test_bias_updates_balance_a_sampled_router() -> None:
    """Global MaxVio below 0.05 after 500 batches (Wang et al.: 0.04)."""
    rng = _rng(2)
    popular = np.log(dirichlet_load(rng, 1, 64, 1.0)[0])
    bias, total = np.zeros(64), np.zeros(64)
    start = None
    for batch in range(500):
        drawn = choose(rng, np.broadcast_to(popular + bias, (512, 64)), 8)
        counts = np.bincount(drawn.ravel(), minlength=64)
        start = max_violation(counts) if start is None else start
        bias = update_bias(bias, counts, 0.02)
        if batch >= 250:
            total += counts
    assert start is not None
    assert start > 1.0
    assert max_violation(total) < 0.05


def test_router_side_strategy_says_that_it_changes_output(qwen: RoutingStats) -> None:
    result = _solve("alf_bias", qwen, 8)
    assert result.changes_output
    assert result.stats.load.max() * 128 - 1 < 0.05
    assert [n for n, s in PLACEMENTS.items() if s.changes_output] == ["alf_bias"]


def test_dispatch_policies_use_every_token_once() -> None:
    load = preset("Qwen3-30B-A3B").load(0)[:6]
    table = rebalance(load, 160, groups=1, nodes=1, gpus=32)
    placement = ExpertPlacement(table, 128, 32)
    topology = EpTopology(32, 8)
    worst = {}
    for name, dispatch in DISPATCHES.items():
        shares = dispatch(placement, topology, load)
        assert shares.sum(axis=2) == pytest.approx(1.0)
        assert (shares[placement.on_gpu() == 0] == 0).all()
        loads = gpu_loads(RoutingStats(load, 8), shares)
        worst[name] = par(loads).mean()
    assert worst["least_loaded"] <= min(worst.values()) + 1e-12


def test_metrics_of_a_worked_example() -> None:
    load = np.array([[0.4, 0.1, 0.2, 0.3], [0.25] * 4])
    joint = np.zeros((1, 4, 4))
    joint[0, [0, 1, 2, 3], [0, 2, 2, 1]] = [0.4, 0.1, 0.2, 0.3]
    stats = RoutingStats(load, 1, joint)
    placement = from_gpu_of(np.array([[0, 0, 1, 1], [0, 1, 0, 1]]), 2)
    found = evaluate(placement, stats, EpTopology(2, 1))
    # 0 -> 0 stays, 1 -> 2 stays (both on GPU 0), 2 -> 2 and 3 -> 1: 1 -> 0, 1 -> 1.
    assert found.affinity == pytest.approx(0.4 + 0.1 + 0.3)
    assert found.cross_node_share == pytest.approx(0.2)
    assert found.worst_link == pytest.approx(0.2)
    assert found.load_par == pytest.approx(1.0)


def test_migration_counts_experts_new_on_a_gpu() -> None:
    old = from_gpu_of(np.array([[0, 0, 1, 1]]), 2)
    new = from_gpu_of(np.array([[0, 1, 0, 1]]), 2)
    assert migrated_slots(old, old) == 0
    assert migrated_slots(old, new) == 2


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.long] if n == "joint" else [])
        for n in PLACEMENTS
    ],
)
def test_every_strategy_gives_a_whole_placement_and_a_bound(name: str) -> None:
    stats = preset("OLMoE-1B-7B").stats(tokens=512)
    result = _solve(name, stats, 8, 4)
    assert (result.placement.replicas() == 1).all()
    assert result.upper_bound >= result.objective - 1e-12
    assert 0.0 <= result.gap <= 1.0
    again = _solve(name, stats, 8, 4)
    assert (again.placement.phy_to_log == result.placement.phy_to_log).all()


@pytest.mark.parametrize(
    ("name", "gpus", "options", "says"),
    [
        ("exflow", 7, {}, "divide"),
        ("eplb", 8, {"redundant_experts": 4}, "divide"),
        ("eplb", 8, {"redundant_experts": 8 * 64}, "more copies"),
        ("coactivation", 8, {}, "no coactivation"),
        ("exflw", 8, {}, "did you mean"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, gpus: int, options: dict[str, int], says: str
) -> None:
    stats = RoutingStats(np.full((2, 64), 1 / 64), 8)
    with pytest.raises(ConfigError, match=says):
        _solve(name, stats, gpus, gpus, **options)
