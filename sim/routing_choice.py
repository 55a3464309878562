"""How likely a token is to choose each expert: pure functions of popularity."""

from __future__ import annotations

import numpy as np

from sim.routing_stats import Float


def inclusion(load: Float, top_k: int) -> Float:
    """Probability that a token's k draws without replacement hold each expert.

    Exponential races: with t such that sum_e (1 - exp(-w_e t)) = k, the probability
    is 1 - exp(-w_e t). Against sampling the median error is 0.7 %, the worst 8.5 %
    (a very popular expert).

    Args:
        load: Weights w of the draws, shape (layers, experts).
        top_k: Experts per token.

    Returns:
        Probabilities, shape of ``load``; every layer sums to k.
    """
    layers, experts = load.shape
    if top_k >= experts:
        return np.ones_like(load)
    low, high = np.zeros((layers, 1)), np.ones((layers, 1))
    while ((-np.expm1(-load * high)).sum(axis=1) < top_k).any() and high.max() < 1e12:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        short = (-np.expm1(-load * middle)).sum(axis=1, keepdims=True) < top_k
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    result: Float = -np.expm1(-load * high)
    return result


def observed_inclusion(load: Float, top_k: int) -> Float:
    """Inclusion probabilities that measured shares stand for: k times, at most 1."""
    return np.minimum(top_k * load, 1.0)
