"""Affinity placement: spectral start, then exact assignment layer by layer.

Given its neighbours, the best placement of a layer is a transportation problem (equal
experts per GPU), solved exactly as a linear assignment with every GPU as E/G columns.
Sweeping over the layers climbs; merging two GPUs and splitting them again, in all
layers, leaves the local optima that single layers cannot.
"""

from __future__ import annotations

import numpy as np

from sim.placement.swaps import Labels, one_hot
from sim.routing_stats import Float

_SWEEPS = 20
_LEAST_GAIN = 1e-6
# Up to this many experts in all layers: several starts and random restarts.
_SMALL = 1024
_RESTART_EXPERTS = 10_240
_MOST_RESTARTS = 300


def assign(score: Float) -> Labels:
    """GPU of each expert of largest total score, equally many experts per GPU.

    Args:
        score: Worth of each expert on each GPU, shape (E, G); G must divide E.
    """
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415  (slow to load)

    experts, gpus = score.shape
    room = experts // gpus
    _, columns = linear_sum_assignment(np.repeat(score, room, axis=1), maximize=True)
    labels: Labels = columns.astype(np.int64) // room
    return labels


def affinity(following: Float, labels: Labels) -> float:
    """Share of moves that stay on a GPU, mean over transitions."""
    same = labels[:-1, :, None] == labels[1:, None, :]
    return float((following * same).sum(axis=(1, 2)).mean())


def solve_affinity(following: Float, gpus: int, rng: np.random.Generator) -> Labels:
    """Placement of large affinity, shape (L, E).

    Args:
        following: Joint shares, shape (L - 1, E, E).
        gpus: G; must divide E.
        rng: Draws the windows of restarts (small problems only).
    """
    layers, experts = following.shape[0] + 1, following.shape[1]
    if gpus == 1:
        return np.zeros((layers, experts), dtype=np.int64)
    small = layers * experts <= _SMALL
    middles = {(layers - 1) // 2}
    if small:
        middles |= {0, (layers - 1) // 4, 3 * (layers - 1) // 4, layers - 2}
    best, value = None, -1.0
    for middle in sorted(middles):
        labels = _climb(following, _spectral_start(following, gpus, middle), gpus)
        found = affinity(following, labels)
        if found > value:
            best, value = labels, found
    if best is None:
        raise ValueError("a model has at least two layers here")
    best = _merge_split(following, best, gpus)
    return _restarts(following, best, gpus, rng) if small else best


def improve(following: Float, labels: Labels, gpus: int) -> Labels:
    """A placement climbed from ``labels``; the worth of moves may be negative."""
    return _merge_split(following, _climb(following, labels, gpus), gpus)


def neighbour_score(following: Float, labels: Labels, layer: int, gpus: int) -> Float:
    """Worth of each expert of a layer on each GPU, by its neighbours, (E, G)."""
    score = np.zeros((labels.shape[1], gpus))
    if layer > 0:
        score += following[layer - 1].T @ one_hot(labels[layer - 1], gpus)
    if layer < labels.shape[0] - 1:
        score += following[layer] @ one_hot(labels[layer + 1], gpus)
    return score


def _spectral_start(following: Float, gpus: int, middle: int) -> Labels:
    """Cluster one layer by whom its experts precede; carry it to the others."""
    layers, experts = following.shape[0] + 1, following.shape[1]
    joint = following[middle]
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    chance = np.outer(rows, columns)
    root = np.sqrt(np.maximum(chance, 1e-18))
    left, size, _ = np.linalg.svd((joint - chance) / root)
    labels = np.zeros((layers, experts), dtype=np.int64)
    labels[middle] = _clusters(left[:, : gpus - 1] * size[: gpus - 1], gpus)
    for layer in range(middle + 1, layers):
        labels[layer] = assign(
            following[layer - 1].T @ one_hot(labels[layer - 1], gpus)
        )
    for layer in range(middle - 1, -1, -1):
        labels[layer] = assign(following[layer] @ one_hot(labels[layer + 1], gpus))
    return labels


def _clusters(points: Float, gpus: int) -> Labels:
    """Balanced k-means from far-apart points."""
    chosen = [int(np.argmax((points**2).sum(axis=1)))]
    nearest = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    for _ in range(gpus - 1):
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    centres = points[chosen]
    labels = np.full(len(points), -1)
    for _ in range(20):
        distance = ((points[:, None, :] - centres[None]) ** 2).sum(axis=2)
        new = assign(-distance)
        if (new == labels).all():
            break
        labels = new
        centres = np.stack([points[labels == g].mean(axis=0) for g in range(gpus)])
    return labels


def _climb(following: Float, labels: Labels, gpus: int) -> Labels:
    """Sweep up and down while a pair of sweeps gains."""
    labels = labels.copy()
    layers = labels.shape[0]
    value = affinity(following, labels)
    for _ in range(_SWEEPS):
        for layer in (*range(layers), *range(layers - 2, 0, -1)):
            labels[layer] = assign(neighbour_score(following, labels, layer, gpus))
        found = affinity(following, labels)
        if found - value <= _LEAST_GAIN * abs(value):
            break
        value = found
    return labels


def _merge_split(following: Float, labels: Labels, gpus: int) -> Labels:
    """Split the experts of every two GPUs anew, in all layers, where that gains."""
    labels = labels.copy()
    for first in range(gpus):
        for second in range(first + 1, gpus):
            _resplit(following, labels, first, second)
    return labels


def _resplit(following: Float, labels: Labels, first: int, second: int) -> None:
    layers = labels.shape[0]
    members = [np.flatnonzero((row == first) | (row == second)) for row in labels]
    side = np.stack(
        [
            np.where(row[m] == first, 1.0, -1.0)
            for row, m in zip(labels, members, strict=True)
        ]
    )
    parts = [
        following[n][np.ix_(members[n], members[n + 1])] for n in range(layers - 1)
    ]
    half = side.shape[1] // 2
    # Only x_l' W x_{l+1} varies, for sides +-1; two experts swap sides at a time.
    before = sum(float(side[n] @ p @ side[n + 1]) for n, p in enumerate(parts))
    start = side.copy()
    for _ in range(3):
        old = side.copy()
        for n in (*range(layers), *range(layers - 2, -1, -1)):
            pull = np.zeros(side.shape[1])
            if n > 0:
                pull += side[n - 1] @ parts[n - 1]
            if n < layers - 1:
                pull += parts[n] @ side[n + 1]
            order = np.argsort(-pull, kind="stable")
            side[n] = -1.0
            side[n, order[:half]] = 1.0
        if (side == old).all():
            break
    after = sum(float(side[n] @ p @ side[n + 1]) for n, p in enumerate(parts))
    if after > before + 1e-12 and not (side == start).all():
        for n, m in enumerate(members):
            labels[n, m] = np.where(side[n] > 0, first, second)


def _restarts(
    following: Float, labels: Labels, gpus: int, rng: np.random.Generator
) -> Labels:
    """Shuffle a window of layers, climb again, keep what is better."""
    best, value = labels, affinity(following, labels)
    layers = labels.shape[0]
    for _ in range(min(_RESTART_EXPERTS // best.size, _MOST_RESTARTS)):
        trial = best.copy()
        width = int(rng.integers(1, max(layers // 2, 1) + 1))
        start = int(rng.integers(layers - width + 1))
        trial[start : start + width] = rng.permuted(
            trial[start : start + width], axis=1
        )
        trial = _merge_split(following, _climb(following, trial, gpus), gpus)
        found = affinity(following, trial)
        if found > value + 1e-12:
            best, value = trial, found
    return best
