"""What no placement exceeds, without solving an integer program.

Of two adjacent layers, Y[i, j] = 1 where i and j share a GPU has m = E/G ones in every
row and column. Two relaxations bound sum W Y:

* b-matching: any dual prices u, v give m (sum u + sum v) + sum max(W - u - v, 0);
  prices are improved by exact steps, rows and columns in turn;
* spectral (Ky Fan): Y - m/E has norm m and rank G - 1, so the sum is at most
  (m/E) sum W + m sum of the G - 1 largest singular values of the centred W.

The smaller of both per transition, averaged.
"""

from __future__ import annotations

import numpy as np

from sim.routing_stats import Float

_PRICE_STEPS = 12


def affinity_bound(following: Float, gpus: int) -> float:
    """Upper bound of affinity.

    Args:
        following: Joint shares, shape (L - 1, E, E).
        gpus: G; must divide E.
    """
    if gpus == 1 or not len(following):
        return 1.0
    bounds = np.minimum(_matching(following, gpus), _spectral(following, gpus))
    return min(float(bounds.mean()), 1.0)


def _matching(following: Float, gpus: int) -> Float:
    experts = following.shape[1]
    room = experts // gpus
    rows = np.zeros(following.shape[:2])
    columns = np.zeros(following.shape[:2])
    best: Float = following.sum(axis=(1, 2))
    for step in range(_PRICE_STEPS):
        if step % 2 == 0:
            left = following - columns[:, None, :]
            rows = _threshold(left, room, axis=2)
        else:
            left = following - rows[:, :, None]
            columns = _threshold(left, room, axis=1)
        paid = room * (rows.sum(axis=1) + columns.sum(axis=1))
        over = following - rows[:, :, None] - columns[:, None, :]
        best = np.minimum(best, paid + np.maximum(over, 0.0).sum(axis=(1, 2)))
    return best


def _threshold(values: Float, room: int, axis: int) -> Float:
    """Midway between the room-th largest and the next: either is optimal."""
    size = values.shape[axis]
    if room >= size:
        lowest: Float = values.min(axis=axis)
        return lowest
    ordered = np.partition(values, (size - room - 1, size - room), axis=axis)
    middle: Float = (
        ordered.take(size - room, axis) + ordered.take(size - room - 1, axis)
    ) / 2
    return middle


def _spectral(following: Float, gpus: int) -> Float:
    experts = following.shape[1]
    room = experts // gpus
    centred = following - following.mean(axis=1, keepdims=True)
    centred -= centred.mean(axis=2, keepdims=True)
    sizes = np.linalg.svd(centred, compute_uv=False)[:, : gpus - 1]
    bound: Float = room / experts * following.sum(axis=(1, 2)) + room * sizes.sum(
        axis=1
    )
    return bound


def coactivation_bound(pairs: Float, gpus: int) -> float:
    """Upper bound of the share of co-selected pairs on one GPU, mean over layers.

    As for affinity, with Y symmetric and its diagonal taken: at most m - 1 partners
    per expert, or the G - 1 largest eigenvalues of the centred matrix.
    """
    experts = pairs.shape[1]
    room = experts // gpus
    if gpus == 1:
        return 1.0
    if room == 1:
        return 0.0
    top = np.partition(pairs, experts - room + 1, axis=2)[:, :, experts - room + 1 :]
    by_rows = top.sum(axis=(1, 2))
    bounds = np.minimum(by_rows, _spectral_symmetric(pairs, gpus))
    return min(float(bounds.mean()), 1.0)


def _spectral_symmetric(pairs: Float, gpus: int) -> Float:
    experts = pairs.shape[1]
    room = experts // gpus
    # The diagonal of Y is 1: shift by any diagonal, here the row mean, and take it off.
    shift = pairs.sum(axis=2) / experts
    shifted = pairs + np.einsum("le,ef->lef", shift, np.eye(experts))
    centred = shifted - shifted.mean(axis=1, keepdims=True)
    centred -= centred.mean(axis=2, keepdims=True)
    values = np.sort(np.linalg.eigvalsh(centred), axis=1)[:, ::-1][:, : gpus - 1]
    total = room / experts * shifted.sum(axis=(1, 2))
    total += room * np.maximum(values, 0.0).sum(axis=1)
    bound: Float = total - shift.sum(axis=1)
    return bound


def balance_bound(load: Float, gpus: int, slots: int) -> float:
    """Largest possible mean / max GPU load, mean over layers.

    Without copies the busiest expert alone bounds its GPU's load; with R extra slots
    no expert is split over more than R + 1 slots.
    """
    extra = slots - load.shape[1]
    least = np.maximum(load.max(axis=1) / (extra + 1), 1.0 / gpus)
    return float((1.0 / (gpus * least)).mean())
