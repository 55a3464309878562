"""Top-k choice without replacement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Experts = npt.NDArray[np.int16]


def choose(
    rng: np.random.Generator, logits: npt.NDArray[np.float64], top_k: int
) -> Experts:
    """Draw k different experts per token, the largest perturbed logit first.

    Adding Gumbel noise and taking the k largest is drawing one after the other
    without replacement in proportion to exp(logit) (Plackett-Luce).

    Args:
        rng: Source of randomness.
        logits: Shape (..., experts).
        top_k: Experts per token.

    Returns:
        Expert numbers, shape (..., top_k).
    """
    uniform = rng.random(logits.shape, dtype=np.float32)
    noise = -np.log(-np.log(np.maximum(uniform, 1e-12, dtype=np.float32)))
    return _largest(logits.astype(np.float32) + noise, top_k)


def _largest(scores: npt.NDArray[np.float32], top_k: int) -> Experts:
    top = np.argpartition(scores, -top_k, axis=-1)[..., -top_k:]
    order = np.argsort(-np.take_along_axis(scores, top, -1), axis=-1)
    return np.take_along_axis(top, order, -1).astype(np.int16)
