"""Placements that look at nothing: linear, round robin, random."""

from __future__ import annotations

import numpy as np

from sim.placement.placement import from_gpu_of
from sim.placement.strategy import Placed, PlacementOptions
from sim.placement.topology import EpTopology
from sim.routing_stats import RoutingStats


def place_linear(
    stats: RoutingStats,
    topology: EpTopology,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> Placed:
    """Contiguous blocks of experts, as every engine's default."""
    row = np.arange(stats.num_experts) // (stats.num_experts // topology.gpus)
    return _fixed(row, stats, topology)


def place_round_robin(
    stats: RoutingStats,
    topology: EpTopology,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> Placed:
    """Expert e on GPU e mod G (vLLM: --expert-placement-strategy round_robin)."""
    return _fixed(np.arange(stats.num_experts) % topology.gpus, stats, topology)


def place_random(
    stats: RoutingStats,
    topology: EpTopology,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> Placed:
    """A random order of experts per layer."""
    per_gpu = stats.num_experts // topology.gpus
    gpu = np.tile(np.arange(stats.num_experts) // per_gpu, (stats.num_layers, 1))
    placement = from_gpu_of(rng.permuted(gpu, axis=1), topology.gpus)
    return Placed(placement=placement, objective_name="affinity")


def _fixed(row: np.ndarray, stats: RoutingStats, topology: EpTopology) -> Placed:
    gpu_of = np.tile(row, (stats.num_layers, 1))
    return Placed(
        placement=from_gpu_of(gpu_of, topology.gpus), objective_name="affinity"
    )
