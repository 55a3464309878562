"""The tight integer program of affinity placement, on HiGHS."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from sim.errors import ConfigError
from sim.placement.assignment import affinity, solve_affinity
from sim.placement.bounds import affinity_bound
from sim.placement.swaps import Labels
from sim.routing_stats import Float

_MOST_BINARIES: Final = 20_000


def solve_program(
    following: Float, gpus: int, time_limit_s: float, rng: np.random.Generator
) -> tuple[Labels, float]:
    """Placement and proven upper bound of affinity.

        max  sum W_l[i, j] y[l, i, j, g]
        s.t. sum_j y[l, i, j, g] = m x[l, i, g],  sum_i y = m x[l + 1, j, g],
             sum_g x = 1,  sum_e x = m,  x binary, 0 <= y <= 1

    The form with differences |x - x'| that ExFlow prints has no useful bound: x = 1/G
    costs nothing there. The heuristic's placement is kept where the program finds
    none better in its time.

    Raises:
        ConfigError: If the program would have more binaries than can be hoped for.
    """
    layers, experts = following.shape[0] + 1, following.shape[1]
    binaries = layers * experts * gpus
    if binaries > _MOST_BINARIES:
        raise ConfigError(
            f"exflow on the integer program: {binaries} binaries; at most"
            f" {_MOST_BINARIES}: use solver lap"
        )
    start = solve_affinity(following, gpus, rng)
    found, bound = _solve(following, gpus, time_limit_s)
    bound = min(bound, affinity_bound(following, gpus))
    if found is None or affinity(following, found) < affinity(following, start):
        return start, bound
    return found, bound


def _solve(
    following: Float, gpus: int, time_limit_s: float
) -> tuple[Labels | None, float]:
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415

    steps, experts = following.shape[0], following.shape[1]
    layers, room = steps + 1, experts // gpus
    num_x, num_y = layers * experts * gpus, steps * experts * experts * gpus
    cost = np.zeros(num_x + num_y)
    cost[num_x:] = -np.repeat(following.reshape(-1), gpus) / steps
    matrix, right = _rows(layers, experts, gpus, room)
    upper = np.ones(num_x + num_y)
    # GPUs are alike: the first expert may sit on the first of them.
    lower = np.zeros(num_x + num_y)
    lower[0] = 1.0
    result = milp(
        cost,
        constraints=LinearConstraint(matrix, right, right),
        bounds=Bounds(lower, upper),
        integrality=np.concatenate([np.ones(num_x), np.zeros(num_y)]),
        options={"time_limit": time_limit_s},
    )
    dual = getattr(result, "mip_dual_bound", None)
    bound = 1.0 if dual is None or not np.isfinite(dual) else float(-dual)
    if result.x is None:
        return None, bound
    x = result.x[:num_x].reshape(layers, experts, gpus)
    return np.argmax(x, axis=2), bound


def _rows(layers: int, experts: int, gpus: int, room: int) -> tuple[Any, Float]:
    """Equality constraints as a sparse matrix, and their right-hand sides."""
    from scipy.sparse import coo_array  # noqa: PLC0415

    num_x = layers * experts * gpus
    x = np.arange(num_x).reshape(layers, experts, gpus)
    y = num_x + np.arange((layers - 1) * experts * experts * gpus).reshape(
        layers - 1, experts, experts, gpus
    )
    blocks = [
        (x.reshape(layers * experts, gpus), None, 1.0),
        (x.transpose(0, 2, 1).reshape(layers * gpus, experts), None, float(room)),
        # sum_j y - m x[l] = 0, and sum_i y - m x[l + 1] = 0
        (y.transpose(0, 1, 3, 2).reshape(-1, experts), x[:-1].reshape(-1), 0.0),
        (y.transpose(0, 2, 3, 1).reshape(-1, experts), x[1:].reshape(-1), 0.0),
    ]
    rows, columns, values, right = [], [], [], []
    first = 0
    for summed, minus, value in blocks:
        number = np.arange(first, first + len(summed))
        rows.append(np.repeat(number, summed.shape[1]))
        columns.append(summed.reshape(-1))
        values.append(np.ones(summed.size))
        if minus is not None:
            rows.append(number)
            columns.append(minus)
            values.append(np.full(len(summed), -float(room)))
        right.append(np.full(len(summed), value))
        first += len(summed)
    shape = (first, num_x + y.size)
    entries = (np.concatenate(rows), np.concatenate(columns))
    matrix = coo_array((np.concatenate(values), entries), shape=shape).tocsr()
    return matrix, np.concatenate(right)
