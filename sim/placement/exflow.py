"""ExFlow (arXiv 2401.08383): co-locate experts that follow each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sim.placement.assignment import affinity, solve_affinity
from sim.placement.exflow_program import solve_program
from sim.placement.placement import from_gpu_of
from sim.placement.strategy import Placed, PlacementOptions
from sim.placement.swaps import Labels
from sim.placement.topology import EpTopology
from sim.routing_stats import Float, RoutingStats

Solve = Callable[[Float, int, np.random.Generator], Labels]


def place_exflow(
    stats: RoutingStats,
    topology: EpTopology,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> Placed:
    """Maximise affinity with equally many experts per GPU, blind to load.

    Over several nodes the published scheme is staged: first nodes, then the GPUs of
    each; "bipart" halves again and again. ``solver = "milp"`` proves the flat problem
    (small models: some hundred assignment binaries).
    """
    following = stats.following()
    bound = None
    if options.solver == "milp":
        labels, bound = solve_program(
            following, topology.gpus, options.time_limit_s, rng
        )
    else:
        labels = affinity_labels(following, topology, options.hierarchy, rng)
    return Placed(
        placement=from_gpu_of(labels, topology.gpus),
        objective_name="affinity",
        objective=affinity(following, labels) if len(following) else 1.0,
        upper_bound=bound,
    )


def affinity_labels(
    following: Float, topology: EpTopology, hierarchy: str, rng: np.random.Generator
) -> Labels:
    """GPU of every expert of large affinity, shape (L, E)."""
    experts = following.shape[1]
    if not len(following):
        only: Labels = np.arange(experts)[None, :] // (experts // topology.gpus)
        return only
    if hierarchy == "bipart":
        return _bipart(following, topology.gpus, rng)
    staged = hierarchy == "staged" or (hierarchy == "auto" and topology.nodes > 1)
    if not staged or topology.nodes == 1:
        return solve_affinity(following, topology.gpus, rng)
    local = topology.gpus // topology.nodes
    node = solve_affinity(following, topology.nodes, rng)
    return _within(following, node, topology.nodes, local, rng, solve_affinity)


def _bipart(following: Float, gpus: int, rng: np.random.Generator) -> Labels:
    if gpus % 2:
        return solve_affinity(following, gpus, rng)
    halves = solve_affinity(following, 2, rng)
    return _within(following, halves, 2, gpus // 2, rng, _bipart)


def _within(
    following: Float,
    outer: Labels,
    parts: int,
    local: int,
    rng: np.random.Generator,
    solve: Solve,
) -> Labels:
    """Place the experts of every part over its own GPUs."""
    out = np.empty_like(outer)
    for part in range(parts):
        members = np.stack([np.flatnonzero(row == part) for row in outer])
        inner = np.stack(
            [
                following[n][np.ix_(members[n], members[n + 1])]
                for n in range(len(following))
            ]
        )
        labels = solve(inner, local, rng) if local > 1 else np.zeros_like(members)
        np.put_along_axis(out, members, part * local + labels, axis=1)
    return out
