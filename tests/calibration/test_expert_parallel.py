"""Experts rank by rank: a literal twin, closed forms, waits, messages."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.kernels.exchange import NcclExchange
from calibration.kernels.expert_parallel import ExpertParallelLayers
from calibration.kernels.rank_loads import MoeShape, copies
from sim.build import build_machine
from sim.build_placement import rank_loads
from sim.config_file import load_config
from sim.kernel_times import Timed
from sim.placement.metrics import reach
from sim.placement.placement import ExpertPlacement, from_gpu_of
from sim.placement.topology import EpTopology
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.routing_choice import observed_inclusion
from sim.routing_stats import RoutingStats
from workloads.routing.coverage import RoutedCoverage
from workloads.routing.popularity import dirichlet_load

RANKS = 8
EP8 = (
    *("cluster.gpus_per_node=8", "parallel.tensor_parallel_size=8"),
    "parallel.expert_parallel_size=8",
)


class _Links:
    """Records what it is asked; a byte takes a nanosecond."""

    ranks, ranks_per_node = RANKS, 4

    def __init__(self) -> None:
        self.asked: list[tuple[float, float]] = []

    def all_to_all(self, near: float, far: float) -> Timed:
        self.asked.append((near, far))
        return Timed(round(max(near, far)))


class _Experts:
    """A rank takes 5 ns per pair and 100 ns per touched expert."""

    def on_ranks(
        self, tokens: int, touched: np.ndarray, pairs: np.ndarray
    ) -> tuple[np.ndarray, bool]:
        return 5 * pairs + 100 * touched, False


class _Scale:
    unchanged = True


def _layers(
    stats: RoutingStats, placement: ExpertPlacement, mode: str = "ep_home"
) -> tuple[ExpertParallelLayers, _Links]:
    links = _Links()
    pi = observed_inclusion(stats.load, stats.top_k)
    shape = MoeShape(hidden_size=100, top_k=stats.top_k, expert_bytes=1000.0)
    loads = rank_loads(placement, stats, EpTopology(RANKS, 4))
    out, back = copies(loads, RANKS, mode)  # type: ignore[arg-type]
    layers = ExpertParallelLayers(
        experts=_Experts(),  # type: ignore[arg-type]
        links=links,  # type: ignore[arg-type]
        exchange=(
            None if mode == "tp_allreduce" else NcclExchange(links, out, back, shape)  # type: ignore[arg-type]
        ),
        loads=loads,
        miss=RoutedCoverage(pi, 40.0).miss,
        shape=shape,
        communication=mode,  # type: ignore[arg-type]
        gather=Timed,
        sharded_attention=True,
        scale=_Scale(),  # type: ignore[arg-type]
    )
    return layers, links


def _linear(layers: int, experts: int) -> ExpertPlacement:
    row = np.arange(experts) // (experts // RANKS)
    return from_gpu_of(np.tile(row, (layers, 1)), RANKS)


def test_layers_equal_their_literal_twin() -> None:
    stats = RoutingStats(dirichlet_load(np.random.default_rng(1), 3, 16, 1.0), 2)
    layers, _ = _layers(stats, _linear(3, 16), "tp_allreduce")
    cost = layers.cost(10, (), graph=True)
    total = idle = 0
    for layer in range(3):
        times = []
        for rank in range(RANKS):
            pairs = touched = 0.0
            for expert in (2 * rank, 2 * rank + 1):
                share = stats.load[layer, expert]
                pairs += 10 * 2 * share
                touched += 1 - (1 - min(2 * share, 1.0)) ** 10
            times.append(5 * pairs + 100 * touched)
        total += round(max(times))
        idle += round(max(times) - sum(times) / RANKS)
        assert cost.ns[layer + 1] == total
        assert cost.wait_ns[layer + 1] == idle
    assert layers.reductions == 2


def test_balanced_ranks_do_not_wait() -> None:
    stats = RoutingStats(np.full((4, 64), 1 / 64), 8)
    cost = _layers(stats, _linear(4, 64), "tp_allreduce")[0].cost(
        32, (512,), graph=True
    )
    assert cost.wait_ns == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("gpus", "distinct"), [(4, 3.63), (8, 5.34), (16, 6.60), (32, 7.36)]
)
def test_distinct_gpus_of_a_uniform_token(gpus: int, distinct: float) -> None:
    """Hypergeometric, E = 128, k = 8."""
    stats = RoutingStats(np.full((1, 128), 1 / 128), 8)
    row = np.arange(128) // (128 // gpus)
    shares = from_gpu_of(row[None], gpus).even_shares()
    assert reach(stats, shares).sum() == pytest.approx(distinct, abs=0.006)


def test_home_messages_go_once_to_each_gpu_and_node() -> None:
    stats = RoutingStats(np.full((1, 64), 1 / 64), 8)
    layers, links = _layers(stats, _linear(1, 64))
    cost = layers.cost(80, (), graph=True)
    shares = _linear(1, 64).even_shares()
    distinct = reach(stats, shares).sum()
    halves = np.stack([shares[:, :, :4].sum(2), shares[:, :, 4:].sum(2)], axis=2)
    nodes = reach(stats, halves).sum()
    width = 100 * 2  # bfloat16 both ways
    near, far = links.asked[0]
    assert near == pytest.approx(80 / RANKS * distinct * 7 / 8 * width)
    assert far == pytest.approx(80 / RANKS * nodes / 2 * width)
    assert len(links.asked) == 2
    assert cost.link_bytes[1] == pytest.approx(2 * 80 * distinct * 7 / 8 * width, abs=1)
    assert layers.reductions == 1


def test_context_coherent_top1_moves_only_what_leaves() -> None:
    joint = np.zeros((1, 8, 8))
    joint[0, np.arange(8), np.arange(8)] = 0.75 / 8
    joint[0, np.arange(8), (np.arange(8) + 1) % 8] = 0.25 / 8
    stats = RoutingStats(np.full((2, 8), 1 / 8), 1, joint)
    layers, links = _layers(stats, _linear(2, 8), "context_coherent")
    layers.cost(80, (), graph=True)
    # Layer 0 starts anywhere: 1/8 stays by chance; then a quarter leaves; no way back.
    assert [near for near, _ in links.asked] == pytest.approx(
        [80 / RANKS * 7 / 8 * 200, 80 / RANKS * 0.25 * 200]
    )
    assert layers.iteration(10).ns == 10 * 100 * 2


def _price(*overrides: str) -> tuple[int, int, int, int]:
    pricer = build_machine(load_config(None, list(overrides))).pricer
    chunk = PrefillChunk(0, 1024, 512)
    mixed = pricer.price(StepPlan((LayerSpan(0, 48, (chunk,)),)), 16, 32_000)
    spans = (
        LayerSpan(0, 3),
        LayerSpan(3, 6, (PrefillChunk(0, 0, 8192),)),
        LayerSpan(6, 48),
    )
    layered = pricer.price(StepPlan(spans), 64, 64_000)
    return (mixed.duration_ns, mixed.wait_ns, layered.duration_ns, layered.wait_ns)


@pytest.mark.parametrize(
    ("overrides", "before"),
    [
        ((), (21004911, 4434227, 20665171, 3801625)),
        (("parallel.expert_parallel_size=2",), (21446703, 4434227, 21239149, 3801625)),
        (
            (
                "parallel.tensor_parallel_size=8",
                "cluster.gpus_per_node=8",
                "parallel.expert_parallel_size=8",
            ),
            (15764078, 6444544, 13200576, 4666550),
        ),
    ],
)
def test_without_statistics_predictions_are_those_before_placements(
    overrides: tuple[str, ...], before: tuple[int, int, int, int]
) -> None:
    """To the nanosecond those of revision 7291915, which had no placements."""
    assert _price(*overrides) == before


def test_imbalance_costs_time_and_waits() -> None:
    linear, lpt, exflow = (
        _price(*EP8, "moe.statistics=preset", f"moe.placement={name}")
        for name in ("linear", "lpt", "exflow")
    )
    assert lpt[0] < linear[0] < exflow[0]
    assert lpt[1] < linear[1] < exflow[1]


def test_context_coherent_needs_room_for_every_context() -> None:
    dp8 = (
        *("cluster.gpus_per_node=8", "parallel.tensor_parallel_size=1"),
        *("parallel.data_parallel_size=8", "parallel.expert_parallel_size=8"),
    )
    blocks = {
        mode: build_machine(
            load_config(None, [*dp8, f"moe.communication={mode}"])
        ).num_blocks
        for mode in ("ep_home", "context_coherent")
    }
    assert blocks["context_coherent"] == pytest.approx(blocks["ep_home"] / 8, rel=1e-3)


@pytest.mark.parametrize("mode", ["tp_allreduce", "ep_home", "context_coherent"])
@pytest.mark.parametrize("factor", [1.0, 1.37])
def test_kernels_of_an_iteration_add_up_to_its_price(mode: str, factor: float) -> None:
    dp4 = (
        *("cluster.gpus_per_node=4", "parallel.tensor_parallel_size=1"),
        *("parallel.data_parallel_size=4", "parallel.expert_parallel_size=4"),
        *("moe.placement=lpt", f"moe.communication={mode}"),
    )
    machine = build_machine(load_config(None, list(dp4)))
    machine.pricer._kernel_factor = factor
    assert machine.parts is not None
    machine.parts._factor = factor
    chunks = (PrefillChunk(0, 1024, 512), PrefillChunk(1, 0, 300))
    plan = StepPlan((LayerSpan(0, 5), LayerSpan(5, 9, chunks), LayerSpan(9, 48)))
    spans, step = machine.parts.split(plan, 37, 41_000)
    total = sum(sum(parts.values()) for parts in (*spans, step))
    assert total == machine.pricer.price(plan, 37, 41_000).duration_ns


def test_linear_is_priced_like_its_rivals() -> None:
    """Asked for by name, contiguous experts meet the routing that others meet."""
    named = _price(*EP8, "moe.placement=linear")
    assert named == _price(*EP8, "moe.statistics=preset")
    assert named != _price(*EP8)
