"""MoETuner's two integer programs as printed, on HiGHS."""

from __future__ import annotations

import numpy as np

from sim.errors import ConfigError
from sim.placement.lpt import balanced_labels
from sim.placement.swaps import Labels
from sim.routing_stats import Float

_MOST_CLUSTERS = 8


def cluster_program(load: Float, gpus: int, time_limit_s: float) -> Labels:
    """Clusters of least total deviation from the mean load, shape (L, E).

    Per layer: min sum_c d_c, d_c >= +-(sum_e load x[c, e] - 1/G), sum_c x = 1 and, as
    the printed program leaves out, sum_e x = E/G.

    Args:
        load: Shares, shape (L, E).
        gpus: Clusters.
        time_limit_s: For all layers together.
    """
    share = time_limit_s / len(load)
    start = balanced_labels(load, gpus)
    return np.stack(
        [_cluster(row, s, gpus, share) for row, s in zip(load, start, strict=True)]
    )


def _cluster(load: Float, start: Labels, gpus: int, time_limit_s: float) -> Labels:
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415

    experts = load.size
    num_x = gpus * experts
    x = np.arange(num_x).reshape(gpus, experts)
    total = num_x + gpus
    once = np.zeros((experts, total))
    counts = np.zeros((gpus, total))
    above, below = np.zeros((gpus, total)), np.zeros((gpus, total))
    for c in range(gpus):
        once[np.arange(experts), x[c]] = 1.0
        counts[c, x[c]] = 1.0
        above[c, x[c]], below[c, x[c]] = load, -load
        above[c, num_x + c] = below[c, num_x + c] = -1.0
    mean = 1.0 / gpus
    constraints = [
        LinearConstraint(once, 1.0, 1.0),
        LinearConstraint(counts, experts // gpus, experts // gpus),
        LinearConstraint(above, -np.inf, mean),
        LinearConstraint(below, -np.inf, -mean),
    ]
    cost = np.concatenate([np.zeros(num_x), np.ones(gpus)])
    result = milp(
        cost,
        constraints=constraints,
        bounds=Bounds(np.zeros(total), np.r_[np.ones(num_x), np.full(gpus, np.inf)]),
        integrality=np.r_[np.ones(num_x), np.zeros(gpus)],
        options={"time_limit": time_limit_s},
    )
    if result.x is None:
        return start
    found: Labels = np.argmax(result.x[:num_x].reshape(gpus, experts), axis=0)

    def deviation(labels: Labels) -> float:
        return float(np.abs(np.bincount(labels, load, gpus) - mean).sum())

    return found if deviation(found) <= deviation(start) else start


def map_program(flows: Float, cost: Float, time_limit_s: float) -> Labels:
    """GPU of every cluster, shape (L, G), of least sum of busiest links.

    min sum_l M_l, M_l >= cost[g, h] C_l[c, d] (y_l[c, g] + y_{l+1}[d, h] - 1), y a
    permutation per layer. Solved transition by transition, each after the one before;
    for uniform links that is the whole program's optimum.

    Raises:
        ConfigError: If there are too many clusters to hope for.
    """
    gpus = len(cost)
    if gpus > _MOST_CLUSTERS:
        raise ConfigError(
            f"moetuner on the integer program: {gpus} GPUs; at most {_MOST_CLUSTERS}:"
            " use solver lap"
        )
    maps = [np.arange(gpus)]
    for flow in flows:
        maps.append(_map(flow, maps[-1], cost, time_limit_s / len(flows)))
    return np.stack(maps)


def _map(flow: Float, before: Labels, cost: Float, time_limit_s: float) -> Labels:
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415

    gpus = len(flow)
    size = gpus * gpus
    y = np.arange(size).reshape(gpus, gpus)
    # With the layer before in place, y + y' - 1 = y', so a link is linear in y'.
    links = np.zeros((gpus**3, size + 1))
    row = 0
    for c in range(gpus):
        for d in range(gpus):
            for h in range(gpus):
                links[row, y[d, h]] = cost[before[c], h] * flow[c, d]
                links[row, size] = -1.0
                row += 1
    once = np.zeros((2 * gpus, size + 1))
    for g in range(gpus):
        once[g, y[g]] = 1.0
        once[gpus + g, y[:, g]] = 1.0
    result = milp(
        np.r_[np.zeros(size), 1.0],
        constraints=[
            LinearConstraint(links, -np.inf, 0.0),
            LinearConstraint(once, 1.0, 1.0),
        ],
        bounds=Bounds(np.zeros(size + 1), np.r_[np.ones(size), np.inf]),
        integrality=np.r_[np.ones(size), 0.0],
        options={"time_limit": time_limit_s},
    )
    if result.x is None:
        return before
    labels: Labels = np.argmax(result.x[:size].reshape(gpus, gpus), axis=1)
    return labels
