"""Which copy of a replicated expert a token goes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from sim.placement.placement import ExpertPlacement
from sim.placement.topology import EpTopology
from sim.routing_stats import Float

Dispatch = Callable[[ExpertPlacement, EpTopology, Float], Float]
"""Share of an expert's tokens by GPU, (L, E, G), from placement and load (L, E)."""

_ROUNDS = 200


def static(placement: ExpertPlacement, topology: EpTopology, load: Float) -> Float:
    """Every GPU uses one copy: its own, else one in its node, else any (SGLang).

    Tokens are spread evenly over the GPUs they come from.
    """
    there = placement.on_gpu() > 0
    node = topology.node_of
    shares = np.zeros(there.shape)
    for source in range(topology.gpus):
        near = there & (node == node[source])
        own = there.copy()
        own[:, :, np.arange(topology.gpus) != source] = False
        usable = np.where(near.any(axis=2, keepdims=True), near, there)
        usable = np.where(own.any(axis=2, keepdims=True), own, usable)
        shares += usable / usable.sum(axis=2, keepdims=True)
    return shares / topology.gpus


def random(placement: ExpertPlacement, topology: EpTopology, load: Float) -> Float:
    """Any copy with equal probability."""
    return placement.even_shares()


def least_loaded(
    placement: ExpertPlacement, topology: EpTopology, load: Float
) -> Float:
    """Copies share an expert's tokens so that the busiest GPU gets least.

    Fractional water-filling by multiplicative steps, the linear program behind
    LPLB-like dispatchers, to about 0.1 %.
    """
    there = placement.on_gpu() > 0
    shares = placement.even_shares()
    best, least = shares, np.inf
    for turn in range(_ROUNDS):
        loads = np.einsum("le,leg->lg", load, shares)
        ratio = loads / loads.mean(axis=1, keepdims=True)
        worst = float(ratio.max(axis=1).mean())
        if worst < least:
            best, least = shares, worst
        rate = 2.0 / (1.0 + turn / 20)
        shares = shares * np.exp(-rate * (ratio - 1.0))[:, None, :] * there
        shares /= shares.sum(axis=2, keepdims=True)
    return best


DISPATCHES: Mapping[str, Dispatch] = MappingProxyType(
    {"static": static, "random": random, "least_loaded": least_loaded}
)
"""Every dispatch policy by its name."""
