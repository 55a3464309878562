"""What a placement is worth: balance, affinity, crossing shares, links, bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.placement.placement import ExpertPlacement
from sim.placement.topology import EpTopology
from sim.routing_stats import Float, RoutingStats


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementMetrics:
    """A placement under given statistics.

    Attributes:
        affinity: Share of layer-to-layer moves that stay on a GPU, mean over layers.
        node_affinity: The same for a node.
        load_par: Max / mean GPU load, mean over layers.
        load_par_max: The same of the worst layer.
        coactivation: Share of a token's expert pairs on one GPU; None if unknown.
        distinct_gpus: GPUs that a token's experts are on, expected.
        dispatch_sends: Copies of a token sent to other GPUs in a layer (ep_home).
        node_sends: Those to other nodes.
        worst_link: Largest share of a transition's moves between two GPUs, mean over
            layers (MoETuner's objective).
    """

    affinity: float
    node_affinity: float
    load_par: float
    load_par_max: float
    coactivation: float | None
    distinct_gpus: float
    dispatch_sends: float
    node_sends: float
    worst_link: float

    @property
    def cross_gpu_share(self) -> float:
        """Share of layer-to-layer moves that change GPU."""
        return 1.0 - self.affinity

    @property
    def cross_node_share(self) -> float:
        """Share of layer-to-layer moves that change node."""
        return 1.0 - self.node_affinity


def gpu_loads(stats: RoutingStats, shares: Float) -> Float:
    """Share of a layer's pairs on each GPU, shape (L, G)."""
    loads: Float = np.einsum("le,leg->lg", stats.load, shares)
    return loads


def par(loads: Float) -> Float:
    """Max / mean over GPUs, shape (L,)."""
    ratio: Float = loads.max(axis=1) / loads.mean(axis=1)
    return ratio


def traffic(following: Float, shares: Float) -> Float:
    """Share of moves from GPU g to h between layers, shape (L - 1, G, G)."""
    moved = np.matmul(shares[:-1].transpose(0, 2, 1), following)
    flows: Float = np.matmul(moved, shares[1:])
    return flows


def reach(stats: RoutingStats, shares: Float) -> Float:
    """Probability that a token needs an expert on each GPU, shape (L, G).

    k draws without replacement, exact for uniform popularity: draw i misses a GPU of
    load share w with probability 1 - w / (1 - i/E). A GPU is needed at least as often
    as its most popular expert. Where co-activation is known, the pairs a token has on
    one GPU, against those of independent draws, scale how many sends are saved.
    """
    k, experts = stats.top_k, stats.num_experts
    pi = np.minimum(k * stats.load, 1.0)
    share = gpu_loads(stats, shares)
    missed = np.ones_like(share)
    for drawn in range(k):
        missed *= np.maximum(1.0 - share / (1.0 - drawn / experts), 0.0)
    popular = (pi[:, :, None] * shares).max(axis=1)
    needed: Float = np.clip(np.maximum(1.0 - missed, popular), 0.0, 1.0)
    if stats.coactivation is None or k == 1:
        return needed
    pairs = k * (k - 1) / 2
    together = np.einsum("lig,lij,ljg->lg", shares, stats.coactivation, shares)
    mean = k * share
    own = np.einsum("le,leg->lg", pi**2, shares**2)
    chance = np.maximum((mean**2 - own) / 2, 1e-12)
    ratio = np.clip(pairs * together / chance, 0.05, 20.0)
    saved = np.maximum(mean - needed, 0.0) * ratio
    least = np.maximum(mean / k, popular)
    bounded: Float = np.clip(mean - saved, least, np.minimum(mean, 1.0))
    return bounded


def evaluate(
    placement: ExpertPlacement,
    stats: RoutingStats,
    topology: EpTopology,
    shares: Float | None = None,
) -> PlacementMetrics:
    """Measure a placement.

    Args:
        placement: Where experts live.
        stats: Routing to judge it by, of the same layers and experts.
        topology: GPUs and nodes.
        shares: Share of an expert's tokens by GPU, (L, E, G); None is an even split
            over its copies.
    """
    shares = placement.even_shares() if shares is None else shares
    loads = gpu_loads(stats, shares)
    ratio = par(loads)
    nodes = topology.node_of
    node_shares = np.stack(
        [shares[:, :, nodes == n].sum(axis=2) for n in range(topology.nodes)], axis=2
    )
    affinity = node_affinity = 1.0
    worst = 0.0
    if stats.num_layers > 1:
        flows = traffic(stats.following(), shares)
        affinity = float(np.einsum("lgg->l", flows).mean())
        node_flows = traffic(stats.following(), node_shares)
        node_affinity = float(np.einsum("lgg->l", node_flows).mean())
        off = flows * (1.0 - np.eye(topology.gpus))
        worst = float(off.max(axis=(1, 2)).mean())
    together = None
    if stats.coactivation is not None:
        pairs = np.einsum("lig,lij,ljg->l", shares, stats.coactivation, shares)
        together = float(pairs.mean())
    distinct = float(reach(stats, shares).sum(axis=1).mean())
    by_node = float(reach(stats, node_shares).sum(axis=1).mean())
    return PlacementMetrics(
        affinity=affinity,
        node_affinity=node_affinity,
        load_par=float(ratio.mean()),
        load_par_max=float(ratio.max()),
        coactivation=together,
        distinct_gpus=distinct,
        dispatch_sends=distinct * (1.0 - 1.0 / topology.gpus),
        node_sends=by_node * (1.0 - 1.0 / topology.nodes),
        worst_link=worst,
    )
