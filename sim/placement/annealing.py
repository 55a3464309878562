"""Annealed pair swaps at a price of imbalance that is learnt on the way.

Given its neighbours a layer is independent of the others, so even and odd layers swap
in turn, all of them at once. A swap is drawn from a few at random by its gain over a
falling temperature (heat bath); the price of max / mean load rises while the placement
is above the wanted one and falls below it, as in dual ascent, so that layers in which
balance is cheap pay for those in which it is dear.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.placement.assignment import affinity, neighbour_score
from sim.placement.swaps import Labels, one_hot
from sim.routing_stats import Float

_STEPS: Final = 150  # swaps of a layer before its neighbours have their turn
_CHOICES: Final = 32  # random swaps of which one is drawn
# Temperatures from first to last, in the mean affinity of an expert.
_HOT: Final = 0.6
_COLD: Final = 0.02
# Start of the price of max / mean load, in the affinity of the start; by how much one
# turn may change it, and at what share of the wanted imbalance off it does.
_FIRST_PRICE: Final = 0.25
_LEARNING: Final = 0.06
_FAR_OFF: Final = 0.2
# Imbalance below which an excess is not divided by it.
_LEAST_IMBALANCE: Final = 1e-3


class _Turn(NamedTuple):
    """Layers that swap now: worth on each GPU, load, GPU and loads of the GPUs."""

    score: Float
    load: Float
    labels: Labels
    total: Float


def anneal(
    following: Float,
    load: Float,
    labels: Labels,
    gpus: int,
    max_par: float,
    turns: int,
    rng: np.random.Generator,
) -> Labels | None:
    """The last placement met at ``max_par`` or below, when swaps have died down.

    Args:
        following: Joint shares, shape (L - 1, E, E).
        load: Shares, shape (L, E).
        labels: GPU of each expert at the start, shape (L, E).
        gpus: G.
        max_par: Most max / mean load of a GPU, mean over layers.
        turns: Of even and of odd layers, one after the other.
        rng: Draws swaps.

    Returns:
        New labels, as many experts per GPU as before; None if none was balanced enough.
    """
    labels = labels.copy()
    start = affinity(following, labels)
    price, warmth = _FIRST_PRICE * start, start / labels.shape[1]
    best = None
    for turn in range(turns):
        temperature = warmth * _HOT * (_COLD / _HOT) ** (turn / max(turns - 1, 1))
        rows = slice(turn % 2, None, 2)
        layers = range(turn % 2, len(load), 2)
        moving = labels[rows].copy()
        score = [neighbour_score(following, labels, n, gpus) for n in layers]
        total = np.einsum("le,leg->lg", load[rows], one_hot(moving, gpus))
        now = _Turn(np.array(score), load[rows], moving, total)
        _swap(now, gpus * price, temperature, rng)
        labels[rows] = moving
        found = par_of(load, labels, gpus)
        if found <= max_par:
            best = labels.copy()
        far = _FAR_OFF * max(max_par - 1.0, _LEAST_IMBALANCE)
        excess = (found - max_par) / far
        price *= math.exp(_LEARNING * min(max(excess, -1.0), 1.0))
    return best


def par_of(load: Float, labels: Labels, gpus: int) -> float:
    """Max / mean load of a GPU, mean over layers."""
    total = np.einsum("le,leg->lg", load, one_hot(labels, gpus))
    return float((total.max(axis=1) / total.mean(axis=1)).mean())


def _swap(
    turn: _Turn, price: float, temperature: float, rng: np.random.Generator
) -> None:
    """Swap in place; ``price`` is that of the largest load of a layer."""
    score, load, labels, total = turn
    layers, experts = labels.shape
    gpus = total.shape[1]
    shape = (_STEPS, layers, _CHOICES)
    # Flat positions: NumPy takes from one axis several times as fast as from two.
    row = np.arange(layers)[:, None]
    pair = rng.integers(experts, size=(2, *shape)) + experts * row
    more = load.take(pair[1]) - load.take(pair[0])
    noise = temperature * rng.gumbel(size=(_STEPS, layers, _CHOICES + 1))
    flat = labels.reshape(-1)
    loads, first = total.reshape(-1), gpus * row
    every = np.arange(layers)
    for step in range(_STEPS):
        a, b, change = pair[0, step], pair[1, step], more[step]
        here, there = flat.take(a), flat.take(b)
        at_a, at_b = gpus * a, gpus * b
        gain = score.take(at_a + there) - score.take(at_a + here)
        gain += score.take(at_b + here) - score.take(at_b + there)
        swapped = np.maximum(
            loads.take(first + here) + change, loads.take(first + there) - change
        )
        largest, others = _largest_others(total, here, there)
        gain -= price * (np.maximum(swapped, others) - largest)
        gain += noise[step, :, :-1]
        gain[here == there] = -np.inf
        choice = gain.argmax(axis=1)
        n = np.flatnonzero(gain[every, choice] > noise[step, :, -1])
        k = choice[n]
        one, other, moved = here[n, k], there[n, k], change[n, k]
        flat[a[n, k]], flat[b[n, k]] = other, one
        total[n, one] += moved
        total[n, other] -= moved


def _largest_others(
    total: Float, here: npt.NDArray[np.int64], there: npt.NDArray[np.int64]
) -> tuple[Float, Float]:
    """Largest load of a layer, and largest but for those of two GPUs."""
    ranked = np.argsort(-total, axis=1)[:, :3]
    loads = total.take(ranked + total.shape[1] * np.arange(len(total))[:, None])
    left = np.zeros((len(total), 1)) if total.shape[1] < 3 else loads[:, 2:]
    for place in (1, 0):
        gpu = ranked[:, place : place + 1]
        taken = (gpu == here) | (gpu == there)
        left = np.where(taken, left, loads[:, place : place + 1])
    return loads[:, :1], left
