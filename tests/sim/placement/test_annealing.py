"""Annealed swaps against all placements of a small model, and their promises."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from sim.placement.annealing import anneal, par_of
from sim.placement.assignment import affinity


def _model(seed: int, layers: int, experts: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    load = rng.dirichlet(np.full(experts, 3.0), size=layers)
    joint = rng.gamma(0.4, size=(layers - 1, experts, experts))
    return joint / joint.sum(axis=(1, 2), keepdims=True), load


def _halves(experts: int) -> list[np.ndarray]:
    """Every way to put half of the experts on the second of two GPUs."""
    rows = []
    for chosen in combinations(range(experts), experts // 2):
        row = np.zeros(experts, dtype=np.int64)
        row[list(chosen)] = 1
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.long) for s in (1, 2, 3, 4))]
)
def test_the_best_balanced_enough_placement_is_found(seed: int) -> None:
    """All 20^3 placements of 3 layers of 6 experts on 2 GPUs."""
    joint, load = _model(seed, 3, 6)
    allowed = 1.2
    best = max(
        affinity(joint, labels)
        for labels in map(np.stack, product(_halves(6), repeat=3))
        if par_of(load, labels, 2) <= allowed
    )
    start = np.tile([0, 0, 0, 1, 1, 1], (3, 1))
    found = anneal(joint, load, start, 2, allowed, 80, np.random.default_rng(0))
    assert found is not None
    assert par_of(load, found, 2) <= allowed
    assert affinity(joint, found) >= 0.97 * best


def test_experts_per_gpu_stay_and_the_start_too() -> None:
    joint, load = _model(7, 4, 24)
    start = np.tile(np.arange(24) // 6, (4, 1))
    kept = start.copy()
    found = anneal(joint, load, start, 4, 1.2, 30, np.random.default_rng(0))
    assert found is not None
    assert (start == kept).all()
    assert all((np.bincount(row) == 6).all() for row in found)
    again = anneal(joint, load, start, 4, 1.2, 30, np.random.default_rng(0))
    assert np.array_equal(found, again)


def test_what_one_hot_expert_forbids_is_not_found() -> None:
    joint, load = _model(7, 2, 8)
    load[:, 0] += 4.0
    load /= load.sum(axis=1, keepdims=True)
    start = np.tile(np.arange(8) // 2, (2, 1))
    assert anneal(joint, load, start, 4, 1.05, 10, np.random.default_rng(0)) is None
