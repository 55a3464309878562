"""Auxiliary-loss-free balancing: a bias per expert on the router's scores.

Wang et al. (arXiv 2408.15664) add b_e to the score by which experts are selected, and
after each batch move b_e by u sign(mean count - count_e). In the primal-dual view (Han
and Zhong, arXiv 2512.03915) b are dual prices of: maximise the selected score with
every token given k experts and every expert kT/E tokens. It is router-side: a token
may meet other experts than the model chose, so the model's output changes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from sim.placement.placement import from_gpu_of
from sim.placement.strategy import Placed, PlacementOptions
from sim.placement.topology import EpTopology
from sim.routing_choice import inclusion
from sim.routing_stats import Float, RoutingStats, with_margins

Rule = Literal["sign", "proportional", "diminishing"]
_STEPS = 200


def update_bias(
    bias: Float, counts: npt.ArrayLike, step: float, rule: Rule = "sign", batch: int = 1
) -> Float:
    """Bias after a batch.

    Args:
        bias: Shape (..., E).
        counts: Tokens each expert got in the batch, shape (..., E).
        step: u.
        rule: "sign" moves every expert by u; "proportional" by u times its relative
            error; "diminishing" by u / batch times it (log regret online).
        batch: Number of the batch, from 1.
    """
    got = np.asarray(counts, dtype=np.float64)
    mean = got.mean(axis=-1, keepdims=True)
    if rule == "sign":
        signed: Float = bias + step * np.sign(mean - got)
        return signed
    rate = step if rule == "proportional" else step / batch
    moved: Float = bias + rate * (mean - got) / mean
    return moved


def max_violation(counts: npt.ArrayLike) -> float:
    """MaxVio: largest load over the mean, minus 1."""
    got = np.asarray(counts, dtype=np.float64)
    return float((got.max(axis=-1) / got.mean(axis=-1)).mean() - 1.0)


def balancing_bias(load: Float, top_k: int) -> Float:
    """Dual prices of a router whose tokens differ by Gumbel noise only.

    Proportional steps on expected counts; shape (L, E).
    """
    bias = np.zeros_like(load)
    log_load = np.log(np.maximum(load, 1e-12))
    for _ in range(_STEPS):
        weights = np.exp(log_load + bias)
        counts = inclusion(weights / weights.sum(axis=1, keepdims=True), top_k)
        if max_violation(counts) < 1e-3:
            break
        # A step in the logarithm of the count is Newton's for rare experts.
        bias += np.log(counts.mean(axis=1, keepdims=True) / counts)
    return bias


def place_alf_bias(
    stats: RoutingStats,
    topology: EpTopology,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> Placed:
    """Leave experts where they are and make the router choose evenly."""
    bias = balancing_bias(stats.load, stats.top_k)
    weights = np.maximum(stats.load, 1e-12) * np.exp(bias)
    load = inclusion(weights / weights.sum(axis=1, keepdims=True), stats.top_k)
    load /= load.sum(axis=1, keepdims=True)
    transition = None
    if stats.transition is not None:
        base = 0.999 * stats.transition
        base += 0.001 * (load[:-1, :, None] * load[1:, None, :])
        transition = with_margins(base, load[:-1], load[1:])
    row = np.arange(stats.num_experts) // (stats.num_experts // topology.gpus)
    changed = RoutingStats(
        load, stats.top_k, transition, stats.coactivation, stats.domain
    )
    return Placed(
        placement=from_gpu_of(np.tile(row, (stats.num_layers, 1)), topology.gpus),
        objective_name="balancedness",
        stats=changed,
    )
