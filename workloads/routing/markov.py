"""Planted inter-layer affinity of known strength: the oracle of affinity placement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.errors import ConfigError
from sim.routing_stats import Float, RoutingStats


@dataclass(frozen=True, slots=True, eq=False)
class PlantedMarkov:
    """Experts in hidden groups; a token stays in its group with strength lambda.

    A top-1 token in group c goes to group c of the next layer with probability
    lambda + (1 - lambda) share_c, and within a group by popularity; so the joint share
    is W_ij = w_i w_j ((1 - lambda) + lambda [same group] / share). The placement of
    whole groups on GPUs has affinity lambda + (1 - lambda) / G at balanced load, which
    is the best there is for uniform popularity.

    Attributes:
        groups: Hidden group of each expert, shape (layers, experts).
        stats: Exact statistics.
        strength: lambda.
    """

    groups: npt.NDArray[np.int64]
    stats: RoutingStats
    strength: float

    def paths(self, rng: np.random.Generator, tokens: int) -> npt.NDArray[np.int16]:
        """Top-1 expert of each token in each layer, shape (tokens, layers, 1)."""
        load = self.stats.load
        layers, experts = load.shape
        out = np.empty((tokens, layers, 1), dtype=np.int16)
        out[:, 0, 0] = rng.choice(experts, size=tokens, p=load[0])
        for layer in range(1, layers):
            fresh = rng.choice(experts, size=tokens, p=load[layer])
            group = self.groups[layer - 1][out[:, layer - 1, 0]]
            kept = rng.random(tokens) < self.strength
            for c in np.unique(group):
                here = np.flatnonzero(kept & (group == c))
                members = np.flatnonzero(self.groups[layer] == c)
                weights = load[layer, members] / load[layer, members].sum()
                fresh[here] = rng.choice(members, size=here.size, p=weights)
            out[:, layer, 0] = fresh
        return out


def planted_markov(
    rng: np.random.Generator,
    load: Float,
    num_groups: int,
    strength: float,
    top_k: int = 1,
) -> PlantedMarkov:
    """Hide ``num_groups`` equal groups, in a random order per layer.

    Every group gets the same share of tokens, so that one chain serves all layers:
    popularities are scaled within groups.

    Args:
        rng: Source of randomness.
        load: Popularity, shape (layers, experts).
        num_groups: Groups; must divide the experts.
        strength: lambda, 0 (independent layers) to 1.
        top_k: Experts per token that the statistics are to state.

    Raises:
        ConfigError: If the groups do not divide the experts or lambda is outside.
    """
    layers, experts = load.shape
    if experts % num_groups:
        raise ConfigError(f"{num_groups} groups: must divide the {experts} experts")
    if not 0.0 <= strength <= 1.0:
        raise ConfigError(f"affinity = {strength}: must be 0 to 1")
    groups = np.empty((layers, experts), dtype=np.int64)
    for layer in range(layers):
        groups[layer, rng.permutation(experts)] = np.arange(experts) % num_groups
    scaled = load.copy()
    for layer in range(layers):
        share = np.bincount(groups[layer], scaled[layer], num_groups)
        scaled[layer] /= share[groups[layer]] * num_groups
    same = groups[:-1, :, None] == groups[1:, None, :]
    joint = scaled[:-1, :, None] * scaled[1:, None, :]
    joint *= (1.0 - strength) + strength * num_groups * same
    stats = RoutingStats(scaled, top_k, joint, None, f"planted lambda {strength:g}")
    return PlantedMarkov(groups, stats, strength)
