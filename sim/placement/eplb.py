"""DeepSeek's expert-parallel load balancer: copies of popular experts, packed evenly.

After the published policy of deepseek-ai/EPLB (MIT), written anew; equal to its golden
vector. Hierarchical: groups of experts to nodes, copies within a node, slots to its
GPUs. Global: the same with one node and one group.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim.errors import ConfigError
from sim.placement.lpt import pack
from sim.placement.placement import ExpertPlacement
from sim.placement.strategy import Placed, PlacementOptions
from sim.placement.topology import EpTopology
from sim.routing_stats import Float, RoutingStats


def place_eplb(
    stats: RoutingStats,
    topology: EpTopology,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> Placed:
    """Balance load with redundant experts.

    "staged" (and "auto" over several nodes) is the hierarchical policy, where the
    groups allow it; "flat" the global one.

    Raises:
        ConfigError: If slots and GPUs do not fit.
    """
    slots = stats.num_experts + options.redundant_experts
    hierarchical = options.hierarchy in ("auto", "staged")
    nodes = topology.nodes if hierarchical else 1
    groups = options.expert_groups
    if hierarchical and groups == 1 and stats.num_experts % nodes == 0:
        groups = nodes  # a model without groups: any equal split does
    table = rebalance(stats.load, slots, groups=groups, nodes=nodes, gpus=topology.gpus)
    placement = ExpertPlacement(table, stats.num_experts, topology.gpus)
    return Placed(placement=placement, objective_name="balancedness")


def rebalance(
    load: Float, slots: int, *, groups: int, nodes: int, gpus: int
) -> npt.NDArray[np.int32]:
    """Expert of every slot, shape (L, slots).

    Args:
        load: Load of the experts, any scale, shape (L, E).
        slots: Physical slots per layer, copies included.
        groups: Groups of consecutive experts that stay in a node.
        nodes: Nodes; where they do not divide the groups, the global policy runs.
        gpus: GPUs.

    Raises:
        ConfigError: If there are fewer slots than experts, or sizes do not divide.
    """
    experts = load.shape[1]
    if slots < experts:
        raise ConfigError(f"{slots} slots: must be >= the {experts} experts")
    if slots % gpus or gpus % nodes or experts % groups:
        raise ConfigError(
            f"{slots} slots, {experts} experts in {groups} groups: must divide over"
            f" {gpus} GPUs in {nodes} nodes"
        )
    if slots > experts * gpus:
        raise ConfigError(
            f"{slots} slots: more copies than a GPU each of {experts} experts can use"
        )
    if groups % nodes:
        groups = nodes = 1
    rows = [_layer(row, slots, groups=groups, nodes=nodes, gpus=gpus) for row in load]
    return np.stack(rows).astype(np.int32)


def _layer(
    load: Float, slots: int, *, groups: int, nodes: int, gpus: int
) -> npt.NDArray[np.int64]:
    size = load.size // groups
    node_of = pack(load.reshape(groups, size).sum(axis=1), nodes)
    order = np.argsort(-load.reshape(groups, size).sum(axis=1), kind="stable")
    out = []
    for node in range(nodes):
        mine = [g for g in order if node_of[g] == node]
        experts = np.concatenate([np.arange(g * size, (g + 1) * size) for g in mine])
        copies = replicate(load[experts], slots // nodes)
        counts = np.bincount(copies, minlength=experts.size)
        each = load[experts][copies] / counts[copies]
        local = gpus // nodes
        gpu = pack(each, local)
        # Slots of a GPU in the order they were packed: heaviest first.
        by_weight = np.argsort(-each, kind="stable")
        packed = by_weight[np.argsort(gpu[by_weight], kind="stable")]
        out.append(experts[copies[packed]])
    return np.concatenate(out)


def replicate(load: Float, slots: int) -> npt.NDArray[np.int64]:
    """Expert of each slot when every extra one goes where load per copy is largest."""
    counts = np.ones(load.size)
    owners = list(range(load.size))
    for _ in range(slots - load.size):
        busiest = int(np.argmax(load / counts))
        owners.append(busiest)
        counts[busiest] += 1
    return np.array(owners)
