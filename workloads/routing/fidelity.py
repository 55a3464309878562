"""Token counts per expert of a step at three fidelities, by what a step may cost.

``counts``: independent binomials, whatever the number of tokens; ``pool``: rows of
token paths drawn once, so that a token's experts stay together over layers and within
its request; ``full``: the router itself.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from sim.routing_choice import observed_inclusion
from workloads.routing.choose import Experts, choose
from workloads.routing.latent import LatentRouter

Float = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class StepSampler(Protocol):
    """Draws how many tokens of a step each expert gets."""

    def draw(self, rng: np.random.Generator, tokens: int) -> Counts:
        """Tokens per expert, shape (layers, experts), of ``tokens`` tokens."""
        ...


class CountsSampler:
    """Binomial(T, pi) per expert and layer; time does not depend on T."""

    def __init__(self, load: Float, top_k: int) -> None:
        self._pi = observed_inclusion(load, top_k)

    def draw(self, rng: np.random.Generator, tokens: int) -> Counts:
        """Tokens per expert; a layer's total is k T on average only."""
        return rng.binomial(tokens, self._pi)


class PoolSampler:
    """Rows of a pool of token paths, each step a random stretch of them."""

    def __init__(self, pool: Experts, num_experts: int) -> None:
        layers = pool.shape[1]
        offset = np.arange(layers, dtype=np.int64)[None, :, None] * num_experts
        self.keys = (pool.astype(np.int64) + offset).reshape(len(pool), -1)
        self._shape = (layers, num_experts)

    def draw(self, rng: np.random.Generator, tokens: int) -> Counts:
        """Tokens per expert of rows drawn with replacement."""
        rows = rng.integers(len(self.keys), size=tokens)
        size = self._shape[0] * self._shape[1]
        return np.bincount(self.keys[rows].ravel(), minlength=size).reshape(self._shape)


class FullSampler:
    """The router itself: every token its own request, or a router's requests."""

    def __init__(
        self, load: Float, top_k: int, router: LatentRouter | None = None
    ) -> None:
        self._logits, self._top_k, self._router = np.log(load), top_k, router

    def draw(self, rng: np.random.Generator, tokens: int) -> Counts:
        """Tokens per expert, k different ones for every token."""
        layers, experts = self._logits.shape
        if self._router is not None:
            routed = self._router.route(rng, np.ones(tokens, dtype=np.int64))
        else:
            shape = (tokens, layers, experts)
            routed = choose(rng, np.broadcast_to(self._logits, shape), self._top_k)
        pool = PoolSampler(routed, experts)
        return np.bincount(pool.keys.ravel(), minlength=layers * experts).reshape(
            layers, experts
        )
