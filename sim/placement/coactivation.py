"""Experts that one token selects together on one GPU, so that it is sent to fewer."""

from __future__ import annotations

import numpy as np

from sim.errors import ConfigError
from sim.placement.assignment import assign
from sim.placement.bounds import coactivation_bound
from sim.placement.placement import from_gpu_of
from sim.placement.strategy import Placed, PlacementOptions
from sim.placement.swaps import Labels, one_hot, swap_layer
from sim.placement.topology import EpTopology
from sim.routing_stats import Float, RoutingStats

_ROUNDS = 10


def place_coactivation(
    stats: RoutingStats,
    topology: EpTopology,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> Placed:
    """Maximise the share of co-selected pairs that share a GPU, blind to load."""
    if stats.coactivation is None:
        raise ConfigError("coactivation: the statistics have no coactivation")
    labels = coactivation_labels(stats.coactivation, topology.gpus)
    return Placed(
        placement=from_gpu_of(labels, topology.gpus),
        objective_name="coactivation",
        objective=together(stats.coactivation, labels),
        upper_bound=coactivation_bound(stats.coactivation, topology.gpus),
    )


def coactivation_labels(pairs: Float, gpus: int) -> Labels:
    """GPU of every expert, shape (L, E): spectral start, assignment, then swaps."""
    return np.stack([_layer(layer, gpus) for layer in pairs])


def together(pairs: Float, labels: Labels) -> float:
    """Share of co-selected pairs on one GPU, mean over layers."""
    same = labels[:, :, None] == labels[:, None, :]
    return float((pairs * same).sum(axis=(1, 2)).mean())


def _layer(pairs: Float, gpus: int) -> Labels:
    experts = len(pairs)
    if gpus in (1, experts):
        return np.arange(experts) * gpus // experts
    weight = np.maximum(pairs.sum(axis=1), 1e-12)
    values, vectors = np.linalg.eigh(pairs / np.sqrt(np.outer(weight, weight)))
    points = vectors[:, 1 - gpus :] * np.maximum(values[1 - gpus :], 0.0)
    labels = assign(points @ points[_seeds(points, gpus)].T)
    best, value = labels, -1.0
    for _ in range(_ROUNDS):
        found = float((pairs * (labels[:, None] == labels[None, :])).sum())
        if found <= value:
            break
        best, value = labels, found
        labels = assign(pairs @ one_hot(labels, gpus))
    return swap_layer(best, np.zeros(experts), gpus, pairs=pairs)


def _seeds(points: Float, gpus: int) -> list[int]:
    chosen = [int(np.argmax((points**2).sum(axis=1)))]
    while len(chosen) < gpus:
        apart = ((points[:, None] - points[chosen][None]) ** 2).sum(axis=2)
        chosen.append(int(np.argmax(apart.min(axis=1))))
    return chosen
