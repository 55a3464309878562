"""Affinity (or co-activation) subject to balance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim.placement.annealing import anneal
from sim.placement.assignment import affinity, improve, neighbour_score
from sim.placement.bounds import coactivation_bound
from sim.placement.coactivation import coactivation_labels, together
from sim.placement.exflow import affinity_labels
from sim.placement.metrics import par
from sim.placement.placement import from_gpu_of
from sim.placement.strategy import Placed, PlacementOptions
from sim.placement.swaps import Labels, one_hot, swap_layer
from sim.placement.topology import EpTopology
from sim.routing_stats import Float, RoutingStats

# Chance co-location counts this many times against a placement at the start.
_CHANCE = 2.0
# Weights of imbalance that swaps then try, until the placement is balanced enough.
_WEIGHTS = (0.1, 0.1, 0.3, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 10.0, 100.0)
_CAPPED_SWEEPS = 3
# Turns of annealing; over many experts, where one takes long, imbalance is loosened so
# many times as far and tightened again instead.
_TURNS = 200
_MANY_EXPERTS = 10_000
_LOOSENED = 5.0


def place_joint(
    stats: RoutingStats,
    topology: EpTopology,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> Placed:
    """Keep as much affinity as an imbalance of ``max_par`` allows.

    Where the placement that is blind to load is balanced enough, it is the answer.
    Else the search starts from affinity beyond chance (what two popular experts share
    without any affinity counts against them), swaps pairs while it weighs the squared
    imbalance more and more until max / mean load of every layer falls below
    ``max_par``, and last anneals swaps at a price of imbalance that keeps the mean of
    the layers there. Without transitions, co-activation takes the place of affinity.
    """
    if stats.transition is None and stats.coactivation is not None:
        return _by_pairs(stats, stats.coactivation, topology, options)
    following, load, gpus = stats.following(), stats.load, topology.gpus
    labels = affinity_labels(following, topology, options.hierarchy, rng)
    if _par(load, labels, gpus) > options.max_par:
        labels = _balanced_enough(load, following, labels, gpus, options.max_par, rng)
    return Placed(
        placement=from_gpu_of(labels, topology.gpus),
        objective_name="affinity",
        objective=affinity(following, labels) if len(following) else 1.0,
    )


def _balanced_enough(
    load: Float,
    following: Float,
    labels: Labels,
    gpus: int,
    max_par: float,
    rng: np.random.Generator,
) -> Labels:
    if not len(following):
        return _tightened(load, following, labels, gpus, max_par, _WEIGHTS)
    beyond = following - _CHANCE * (load[:-1, :, None] * load[1:, None, :])
    labels = improve(beyond, labels, gpus)
    best = _tightened(load, following, labels, gpus, max_par, _WEIGHTS)
    if best.size > _MANY_EXPERTS:
        far = 1.0 + _LOOSENED * (max_par - 1.0)
        labels = _capped(load, following, best, gpus, far)
        other = _tightened(load, following, labels, gpus, max_par, _WEIGHTS[2:])
    else:
        found = anneal(following, load, best, gpus, max_par, _TURNS, rng)
        other = best if found is None else found
    return max((best, other), key=lambda each: affinity(following, each))


def _tightened(
    load: Float,
    following: Float,
    labels: Labels,
    gpus: int,
    max_par: float,
    weights: Sequence[float],
) -> Labels:
    """Balance the layers above ``max_par``; then swap for affinity below it."""
    for weight in weights:
        above = _pars(load, labels, gpus) > max_par
        if not above.any():
            break
        labels = _swap_all(load, following, labels, gpus, balance=weight, layers=above)
    return _capped(load, following, labels, gpus, max_par)


def _capped(
    load: Float, following: Float, labels: Labels, gpus: int, max_par: float
) -> Labels:
    for _ in range(_CAPPED_SWEEPS):
        labels = _swap_all(
            load, following, labels, gpus, balance=0.0, cap=max_par / gpus
        )
    return labels


def _swap_all(
    load: Float,
    following: Float,
    labels: Labels,
    gpus: int,
    *,
    balance: float,
    cap: float | None = None,
    layers: npt.NDArray[np.bool_] | None = None,
) -> Labels:
    labels = labels.copy()
    for layer in range(len(load)):
        if layers is not None and not layers[layer]:
            continue
        labels[layer] = swap_layer(
            labels[layer],
            load[layer],
            gpus,
            score=neighbour_score(following, labels, layer, gpus),
            balance=balance,
            cap=cap,
        )
    return labels


def _by_pairs(
    stats: RoutingStats, pairs: Float, topology: EpTopology, options: PlacementOptions
) -> Placed:
    labels = coactivation_labels(pairs, topology.gpus)
    for weight in _WEIGHTS:
        if _par(stats.load, labels, topology.gpus) <= options.max_par:
            break
        labels = np.stack(
            [
                swap_layer(row, load, topology.gpus, pairs=pair, balance=weight)
                for row, load, pair in zip(labels, stats.load, pairs, strict=True)
            ]
        )
    return Placed(
        placement=from_gpu_of(labels, topology.gpus),
        objective_name="coactivation",
        objective=together(pairs, labels),
        upper_bound=coactivation_bound(pairs, topology.gpus),
    )


def _par(load: Float, labels: Labels, gpus: int) -> float:
    return float(_pars(load, labels, gpus).mean())


def _pars(load: Float, labels: Labels, gpus: int) -> Float:
    return par(np.einsum("le,leg->lg", load, one_hot(labels, gpus)))
