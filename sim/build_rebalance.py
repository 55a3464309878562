"""Experts of a replica on its ranks, and pricers under which they move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from calibration.hardware import Gpu
from calibration.kernels.expert_parallel import ExpertParallelLayers
from calibration.kernels.model_kernels import Deployment, ModelKernels
from calibration.kernels.moe_links import MoeLinks
from calibration.model_shape import ModelShape
from calibration.tables import KernelTables
from sim.build_placement import (
    Routing,
    expert_layers,
    expert_loads,
    is_placed,
    layers_of,
    place_experts,
    routing_of,
    stats_sha256,
    topics_of,
)
from sim.config import Config
from sim.energy import PowerModel
from sim.errors import ConfigError
from sim.expert_loads import ExpertLoads
from sim.placement.placement import ExpertPlacement
from sim.rebalance import RebalancePolicy, RebalancingPricer
from sim.routing_stats import RoutingStats
from sim.step_cost import StepCostModel
from sim.units import ns_from_s
from workloads.coverage import RoutingSkew


@dataclass(frozen=True, slots=True)
class PlacedExperts:
    """Experts of a replica on its ranks.

    Attributes:
        layers: Their price.
        links: All-to-all times.
        model: Their sizes.
        kernels: Kernel times.
        dtype: Weight format.
        loads: What the placement makes of the statistics.
        sha256: Hash of the statistics.
    """

    layers: ExpertParallelLayers
    links: MoeLinks
    model: ModelShape
    kernels: ModelKernels
    dtype: str
    loads: ExpertLoads
    sha256: str


def moves_experts(config: Config) -> bool:
    """Whether topics change or experts move while a run goes on."""
    moe = config.moe
    return moe.rebalance_interval is not None or moe.topic_period_s is not None


def rebalancing_pricer(
    config: Config,
    topics: tuple[Routing, ...],
    model_of: Callable[[ExpertParallelLayers], StepCostModel],
    priced: Callable[[Routing, ExpertPlacement], ExpertParallelLayers],
    transfer_ns: Callable[[float], int],
    expert_bytes: float,
    power: PowerModel,
) -> RebalancingPricer:
    """A fresh pricer for one replica; its first placement is fitted to topic 0."""
    moe = config.moe

    def place(stats: RoutingStats) -> ExpertPlacement:
        return place_experts(config, replace(topics[0], stats=stats))[0]

    return RebalancingPricer(
        policy=RebalancePolicy(
            interval=moe.rebalance_interval,
            window=moe.rebalance_window,
            min_gain=moe.rebalance_min_gain,
            blocking=moe.rebalance_mode == "blocking",
            layers_per_step=moe.rebalance_layers_per_step,
        ),
        topics=[topic.stats for topic in topics],
        period_ns=0 if moe.topic_period_s is None else ns_from_s(moe.topic_period_s),
        initial=place(topics[0].stats),
        place=place,
        pricer_of=lambda topic, placement: model_of(priced(topics[topic], placement)),
        transfer_ns=transfer_ns,
        expert_bytes=expert_bytes,
        power=power,
    )


def placed_experts(
    config: Config,
    kernels: ModelKernels,
    tables: KernelTables,
    device: Gpu,
    deployment: Deployment,
    skew: RoutingSkew,
) -> PlacedExperts | None:
    """Experts priced rank by rank, where a placement is asked for.

    Raises:
        ConfigError: If the statistics, the strategy and the GPUs do not fit.
    """
    if not is_placed(config):
        return None
    shape, dtype = deployment.model, deployment.dtype
    if not shape.is_moe:
        raise ConfigError(f"moe.placement: {shape.name} has no experts")
    routing = routing_of(config, shape, skew)
    links = MoeLinks(
        tables,
        device,
        deployment.gpus,
        config.cluster.gpus_per_node,
        config.cluster.link_bandwidth_scale,
    )
    layers = expert_layers(config, kernels, links, shape, dtype, routing)
    loads = expert_loads(config, routing)
    digest = stats_sha256(routing.stats)
    return PlacedExperts(layers, links, shape, kernels, dtype, loads, digest)


def fresh_pricer(
    config: Config,
    placed: PlacedExperts | None,
    model_of: Callable[[ExpertParallelLayers], StepCostModel],
    power: PowerModel,
) -> Callable[[], RebalancingPricer] | None:
    """Gives a replica a pricer of its own, where experts move or topics change."""
    if placed is None or not moves_experts(config):
        return None
    kernels, links, shape, dtype = (
        placed.kernels,
        placed.links,
        placed.model,
        placed.dtype,
    )
    topics = topics_of(config, shape)

    def priced(routing: Routing, placement: ExpertPlacement) -> ExpertParallelLayers:
        return layers_of(config, kernels, links, shape, dtype, routing, placement)

    return lambda: rebalancing_pricer(
        config,
        topics,
        model_of,
        priced,
        links.transfer_ns,
        shape.expert_bytes(dtype),
        power,
    )
