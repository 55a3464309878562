"""How popular experts are: laws whose parameter is fitted to a model's counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def dirichlet_load(
    rng: np.random.Generator, layers: int, experts: int, alpha: float
) -> Float:
    """Popularity drawn per layer from a symmetric Dirichlet.

    Args:
        rng: Source of randomness.
        layers: Layers.
        experts: Experts per layer.
        alpha: Concentration per expert, > 0; small is skewed (Qwen3-30B-A3B 0.76).

    Returns:
        Shares, shape (layers, experts); every layer sums to 1.
    """
    # The floor keeps an expert's log popularity finite; 1e-9 is no token in practice.
    weights = np.maximum(rng.gamma(alpha, size=(layers, experts)), 1e-9)
    shares: Float = weights / weights.sum(axis=1, keepdims=True)
    return shares


def lognormal_load(
    rng: np.random.Generator, layers: int, experts: int, sigma: float
) -> Float:
    """Popularity drawn per layer from a lognormal of spread ``sigma`` >= 0.

    Args:
        rng: Source of randomness.
        layers: Layers.
        experts: Experts per layer.
        sigma: Standard deviation of the logarithm (DeepSeek-R1 0.61).

    Returns:
        Shares, shape (layers, experts); every layer sums to 1.
    """
    weights = np.exp(sigma * rng.standard_normal((layers, experts)))
    shares: Float = weights / weights.sum(axis=1, keepdims=True)
    return shares
