"""Balance alone: longest processing time first, then pair swaps."""

from __future__ import annotations

import heapq

import numpy as np

from sim.placement.placement import from_gpu_of
from sim.placement.strategy import Placed, PlacementOptions
from sim.placement.swaps import Labels, swap_layer
from sim.placement.topology import EpTopology
from sim.routing_stats import Float, RoutingStats


def place_lpt(
    stats: RoutingStats,
    topology: EpTopology,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> Placed:
    """Spread load evenly, equally many experts per GPU (Graham 1969, then swaps)."""
    labels = balanced_labels(stats.load, topology.gpus)
    return Placed(
        placement=from_gpu_of(labels, topology.gpus), objective_name="balancedness"
    )


def balanced_labels(load: Float, gpus: int) -> Labels:
    """GPU of every expert at nearly even load, shape (L, E)."""
    return np.stack([swap_layer(pack(row, gpus), row, gpus) for row in load])


def pack(weights: Float, bins: int) -> Labels:
    """Heaviest first into the lightest bin with room; equally many items per bin.

    Ties go to the first item and the first bin. The packing of EPLB too.

    Args:
        weights: Shape (items,).
        bins: Must divide the items.

    Returns:
        Bin of each item, shape (items,).
    """
    room = weights.size // bins
    heap = [(0.0, b) for b in range(bins)]
    left = [room] * bins
    out = np.empty(weights.size, dtype=np.int64)
    for item in np.argsort(-weights, kind="stable"):
        total, b = heapq.heappop(heap)
        out[item] = b
        left[b] -= 1
        if left[b]:
            heapq.heappush(heap, (total + float(weights[item]), b))
    return out
