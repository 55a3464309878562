"""MoETuner (arXiv 2502.06643): balanced clusters, then the least busy worst link."""

from __future__ import annotations

import numpy as np

from sim.placement.lpt import balanced_labels
from sim.placement.moetuner_program import cluster_program, map_program
from sim.placement.placement import from_gpu_of
from sim.placement.strategy import Placed, PlacementOptions
from sim.placement.swaps import Labels, one_hot
from sim.placement.topology import EpTopology
from sim.routing_stats import Float, RoutingStats

# NVLink against NIC bandwidth of one GPU of an 8-GPU H100 node (450 and 50 GB/s).
NODE_LINK_COST = 9.0


def place_moetuner(
    stats: RoutingStats,
    topology: EpTopology,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> Placed:
    """Cluster experts by load, then map clusters to GPUs layer by layer.

    Stage 1 decomposes by layer into number partitioning: LPT and swaps. Stage 2
    minimises the sum over layers of the traffic on the busiest link; with uniform
    links only the relative order of consecutive layers matters, so it is exact as one
    bottleneck problem per transition. The bound holds for the clusters of stage 1.
    ``solver = "milp"`` runs the printed integer programs instead (with equal counts
    per cluster, which the paper's stage 1 leaves out).
    """
    gpus = topology.gpus
    if options.solver == "milp":
        clusters = cluster_program(stats.load, gpus, options.time_limit_s)
    else:
        clusters = balanced_labels(stats.load, gpus)
    flows = cluster_flows(stats.following(), clusters, gpus)
    cost = link_costs(topology)
    exact = [bottleneck(flow) for flow in flows]
    best = float(np.mean([worst for worst, _ in exact])) if exact else 0.0
    if options.solver == "milp":
        maps = map_program(flows, cost, options.time_limit_s)
    else:
        maps = _chain([order for _, order in exact], gpus)
        if topology.nodes > 1:
            maps = _by_node(flows, maps, cost)
    labels = np.take_along_axis(maps, clusters, axis=1)
    worst = [busiest(flow, maps[n], maps[n + 1], cost) for n, flow in enumerate(flows)]
    return Placed(
        placement=from_gpu_of(labels, gpus),
        objective_name="link_balance",
        objective=1.0 - float(np.mean(worst)) if worst else 1.0,
        upper_bound=1.0 - best,
    )


def link_costs(topology: EpTopology) -> Float:
    """Cost of a unit of traffic between GPUs; 0 on a GPU, 1 in a node."""
    node = topology.node_of
    cost = np.where(node[:, None] == node[None, :], 1.0, NODE_LINK_COST)
    np.fill_diagonal(cost, 0.0)
    return cost


def cluster_flows(following: Float, clusters: Labels, gpus: int) -> Float:
    """Share of moves from cluster c to d between layers, shape (L - 1, G, G)."""
    member = one_hot(clusters, gpus)
    moved = np.matmul(member[:-1].transpose(0, 2, 1), following)
    flows: Float = np.matmul(moved, member[1:])
    return flows


def busiest(flow: Float, here: Labels, there: Labels, cost: Float) -> float:
    """Cost on the busiest link when clusters sit on these GPUs."""
    return float((flow * cost[np.ix_(here, there)]).max())


def bottleneck(flow: Float) -> tuple[float, Labels]:
    """Least possible busiest link between two layers, uniform links; exact.

    Entries above the optimum must stay on a GPU, so they form a partial matching: the
    smallest threshold for which they do is the optimum. The matching is completed by
    the assignment that keeps most traffic local.

    Args:
        flow: Traffic from cluster to cluster, shape (G, G).

    Returns:
        The busiest link's traffic, and for each cluster of the second layer the
        cluster of the first whose GPU it goes to.
    """
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415  (slow to load)

    size = len(flow)
    levels = np.concatenate([[0.0], np.unique(flow)])
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        above = flow > levels[middle]
        fits = above.sum(axis=0).max() <= 1 and above.sum(axis=1).max() <= 1
        low, high = (low, middle) if fits else (middle + 1, high)
    forced = flow > levels[low]
    score = flow + forced * (1.0 + flow.sum())
    rows, columns = linear_sum_assignment(score, maximize=True)
    to_first = np.empty(size, dtype=np.int64)
    to_first[columns] = rows
    remote = flow.copy()
    remote[rows, columns] = 0.0
    return float(remote.max()), to_first


def _chain(orders: list[Labels], gpus: int) -> Labels:
    """GPU of every cluster, shape (L, G), from relative orders."""
    maps = [np.arange(gpus)]
    for order in orders:
        maps.append(maps[-1][order])
    return np.stack(maps)


def _by_node(flows: Float, maps: Labels, cost: Float) -> Labels:
    """Swap the GPUs of two clusters while the worst link over nodes gets less busy."""
    maps = maps.copy()
    gpus = maps.shape[1]
    for n, flow in enumerate(flows):
        best = busiest(flow, maps[n], maps[n + 1], cost)
        improved = True
        while improved:
            improved = False
            for a in range(gpus):
                for b in range(a + 1, gpus):
                    trial = maps[n + 1].copy()
                    trial[[a, b]] = trial[[b, a]]
                    value = busiest(flow, maps[n], trial, cost)
                    if value < best - 1e-15:
                        maps[n + 1], best, improved = trial, value, True
    return maps
