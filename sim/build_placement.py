"""From configuration to experts placed on ranks: statistics, strategy, rank loads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from calibration.kernels.expert_parallel import (
    ExpertParallelLayers,
    MoeShape,
    RankLoads,
)
from calibration.kernels.model_kernels import ModelKernels
from calibration.kernels.moe_links import MoeLinks
from calibration.model_shape import ModelShape
from sim.config import Config
from sim.config_errors import ConfigKeyError
from sim.errors import ConfigError
from sim.expert_loads import ExpertLoads
from sim.placement import PLACEMENTS
from sim.placement.metrics import gpu_loads, reach, traffic
from sim.placement.placement import ExpertPlacement
from sim.placement.solve import check_problem
from sim.placement.strategy import PlacementOptions
from sim.placement.topology import EpTopology
from sim.routing_choice import observed_inclusion
from sim.routing_stats import RoutingStats
from workloads.coverage import RoutingSkew
from workloads.routing.coverage import RoutedCoverage
from workloads.routing.importers import read_routing
from workloads.routing.importers.options import ImportOptions
from workloads.routing.markov import planted_markov
from workloads.routing.popularity import lognormal_load
from workloads.routing.presets import Preset, preset
from workloads.streams import stream

# Coherence of one prompt's tokens where no preset says: that of Qwen3-30B-A3B.
_CONCENTRATION: Final = 40.0
_CONTIGUOUS: Final = "linear"


@dataclass(frozen=True, slots=True)
class Routing:
    """Statistics of a model in a run, and how alike a prompt's tokens are."""

    stats: RoutingStats
    concentration: float


def is_placed(config: Config) -> bool:
    """Whether experts are priced rank by rank; else as the kernel tables have them."""
    moe = config.moe
    given = moe.statistics is not None or moe.affinity is not None
    return (
        given
        or moe.placement is not None
        or moe.communication != "tp_allreduce"
        or config.parallel.data_parallel_size > 1
        or moe.rebalance_interval is not None
    )


def topology_of(config: Config) -> EpTopology:
    """Ranks of one replica and their nodes."""
    ranks = config.parallel.gpus_per_replica
    return EpTopology(ranks, min(config.cluster.gpus_per_node, ranks))


def routing_of(config: Config, shape: ModelShape, skew: RoutingSkew) -> Routing:
    """Routing statistics of a configuration.

    A file or preset by ``moe.statistics``; else ``moe.affinity`` planted in lognormal
    popularity of ``moe.decode_skew``; else the model's preset, where there is one.

    Raises:
        ConfigError: If a file is bad or does not fit the model.
    """
    moe = config.moe
    layers, experts = shape.num_moe_layers, shape.num_experts
    if moe.statistics is not None and moe.statistics != "preset":
        path = Path(moe.statistics)
        stats = read_routing(path, ImportOptions(top_k=shape.top_k))
        if stats.load.shape != (layers, experts) or stats.top_k != shape.top_k:
            raise ConfigKeyError(
                "moe.statistics",
                moe.statistics,
                f"must be of {layers} layers, {experts} experts, top-{shape.top_k}, as"
                f" {shape.name}; is of {stats.num_layers}, {stats.num_experts},"
                f" top-{stats.top_k}",
            )
        return Routing(stats, _CONCENTRATION)
    known = _known(shape)
    if moe.affinity is None and known is not None:
        topic = "topic-0" if moe.topics > 1 else None
        return _of_preset(known, config, topic)
    if moe.statistics == "preset":
        raise ConfigKeyError(
            "moe.statistics", "preset", f"there is none of {shape.name}"
        )
    rng = stream(0, f"routing/{shape.name}/config")
    load = lognormal_load(rng, layers, experts, skew.decode_skew)
    groups = config.parallel.gpus_per_replica
    planted = planted_markov(rng, load, groups, moe.affinity or 0.0, shape.top_k)
    return Routing(planted.stats, _CONCENTRATION)


def topics_of(config: Config, shape: ModelShape) -> tuple[Routing, ...]:
    """Routing of each topic of the workload, from the model's preset.

    Raises:
        ConfigError: If the model has none.
    """
    known = _known(shape)
    if known is None:
        raise ConfigKeyError(
            "moe.statistics", "preset", f"there is none of {shape.name}"
        )
    names = (f"topic-{n}" for n in range(config.moe.topics))
    return tuple(_of_preset(known, config, name) for name in names)


def _known(shape: ModelShape) -> Preset | None:
    """The model's preset, if there is one of its size."""
    try:
        known = preset(shape.name)
    except ConfigError:
        return None
    fits = (known.layers, known.experts) == (shape.num_moe_layers, shape.num_experts)
    return known if fits else None


def _of_preset(known: Preset, config: Config, topic: str | None) -> Routing:
    stats = _preset_stats(known.name, topic, topology_of(config))
    return Routing(stats, known.concentration)


@lru_cache(maxsize=16)
def _preset_stats(name: str, topic: str | None, topology: EpTopology) -> RoutingStats:
    return preset(name).stats(domain=topic, groups=topology.gpus)


@lru_cache(maxsize=32)
def _solved(
    name: str, stats: RoutingStats, topology: EpTopology, options: PlacementOptions
) -> tuple[ExpertPlacement, RoutingStats]:
    strategy = check_problem(name, stats, topology, options)
    placed = strategy.place(stats, topology, options, stream(0, f"placement/{name}"))
    return placed.placement, placed.stats or stats


def place_experts(
    config: Config, routing: Routing
) -> tuple[ExpertPlacement, RoutingStats]:
    """The placement of a configuration, and routing as the strategy leaves it.

    Raises:
        ConfigError: If the strategy does not fit the statistics or the GPUs.
    """
    moe = config.moe
    name = moe.placement or _CONTIGUOUS
    options = PlacementOptions(redundant_experts=moe.redundant_experts)
    if moe.redundant_experts and not PLACEMENTS[name].replicas:
        able = ", ".join(n for n, s in PLACEMENTS.items() if s.replicas)
        raise ConfigKeyError(
            "moe.redundant_experts",
            moe.redundant_experts,
            f"must be 0 with moe.placement {name}; {able} can use copies",
            ("moe.placement",),
        )
    return _solved(name, routing.stats, topology_of(config), options)


def expert_loads(config: Config, routing: Routing) -> ExpertLoads:
    """Loads of experts and GPUs under the placement of a configuration."""
    placement, stats = place_experts(config, routing)
    gpus = gpu_loads(stats, placement.even_shares())
    return ExpertLoads(config.moe.placement or _CONTIGUOUS, stats.load, gpus)


def rank_loads(
    placement: ExpertPlacement, stats: RoutingStats, topology: EpTopology
) -> RankLoads:
    """What a placement does to routing, per layer."""
    shares = placement.even_shares()
    node = topology.node_of
    by_node = np.stack(
        [shares[:, :, node == n].sum(axis=2) for n in range(topology.nodes)], axis=2
    )
    return RankLoads(
        shares=shares,
        load=gpu_loads(stats, shares),
        needed=reach(stats, shares),
        node_needed=reach(stats, by_node),
        stays=_stays(stats, shares),
        stays_in_node=_stays(stats, by_node),
    )


def _stays(stats: RoutingStats, shares: np.ndarray) -> np.ndarray:
    """Expected experts of the next layer where one of a token is; chance at first."""
    first = np.array([1.0 / shares.shape[2]])
    if stats.num_layers == 1:
        return stats.top_k * first
    local = np.einsum("lgg->l", traffic(stats.following(), shares))
    return stats.top_k * np.concatenate([first, local])


def expert_layers(
    config: Config,
    kernels: ModelKernels,
    links: MoeLinks,
    shape: ModelShape,
    dtype: str,
    routing: Routing,
) -> ExpertParallelLayers:
    """The MoE layers of a replica, priced rank by rank."""
    placement, stats = place_experts(config, routing)
    return layers_of(
        config, kernels, links, shape, dtype, replace(routing, stats=stats), placement
    )


def layers_of(
    config: Config,
    kernels: ModelKernels,
    links: MoeLinks,
    shape: ModelShape,
    dtype: str,
    routing: Routing,
    placement: ExpertPlacement,
) -> ExpertParallelLayers:
    """The same for a given placement."""
    stats = routing.stats
    pi = observed_inclusion(stats.load, stats.top_k)
    return ExpertParallelLayers(
        experts=kernels.routed_experts,
        links=links,
        loads=rank_loads(placement, stats, topology_of(config)),
        miss=RoutedCoverage(pi, routing.concentration).miss,
        shape=MoeShape(
            hidden_size=shape.hidden_size,
            top_k=shape.top_k,
            expert_bytes=shape.expert_bytes(dtype),
            dispatch_dtype=config.moe.dispatch_dtype,
        ),
        communication=config.moe.communication,
        gather=links.gather,
        sharded_attention=config.parallel.tensor_parallel_size > 1,
        scale=kernels.scale,
    )


def stats_sha256(stats: RoutingStats) -> str:
    """Hash of statistics, for a run's provenance."""
    digest = hashlib.sha256()
    arrays: tuple[Any, ...] = (stats.load, stats.transition, stats.coactivation)
    for array in arrays:
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
