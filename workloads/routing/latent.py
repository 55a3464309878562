"""The latent-factor router: one mechanism for skew, affinity and coherence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workloads.routing.choose import Experts, choose

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentSpec:
    """A router: gate vectors times a token's hidden state, plus log popularity.

    Gate vectors W[l, e] ~ N(0, I/d); a token's state is
    sqrt(q) z_request + sqrt(1 - q) u_t, with u autoregressive over tokens (phi) and
    the whole carried from layer to layer with correlation rho; experts are the top k
    of s W h + log popularity + Gumbel. The defaults, with Dirichlet(5.5) popularity,
    reproduce eight published routing statistics of Qwen3.6-35B-A3B with 5.4 % RMS
    error.

    Attributes:
        top_k: Experts per token.
        dimensions: d of the hidden state.
        scale: s, how much the state counts against popularity (affinity).
        layer_rho: rho, correlation of the state in adjacent layers (affinity).
        request_share: q, share of the state a request's tokens have in common.
        token_phi: phi, correlation of the rest between consecutive tokens.
        domains: Topics a request may have, each with its own mean state.
        domain_share: Share of a request's common state that is its topic's.
    """

    top_k: int
    dimensions: int = 10
    scale: float = 4.8
    layer_rho: float = 0.995
    request_share: float = 0.58
    token_phi: float = 0.64
    domains: int = 1
    domain_share: float = 0.5


class LatentRouter:
    """A router drawn from its specification.

    Args:
        rng: Draws gates and the topics' means.
        spec: Its parameters.
        load: Popularity, shape (layers, experts), all > 0.
    """

    def __init__(self, rng: np.random.Generator, spec: LatentSpec, load: Float) -> None:
        self.spec = spec
        shape = (*load.shape, spec.dimensions)
        self._gates = rng.standard_normal(shape) / spec.dimensions**0.5
        self._bias = np.log(load)
        topics = rng.standard_normal((spec.domains, spec.dimensions))
        self._topics: Float = topics

    def route(
        self, rng: np.random.Generator, tokens: npt.ArrayLike, domain: int | None = None
    ) -> Experts:
        """Experts of consecutive tokens of requests.

        Args:
            rng: Draws requests, tokens and ties.
            tokens: Tokens of each request.
            domain: Topic of all requests; None draws one per request.

        Returns:
            Shape (total tokens, layers, top_k), requests one after the other.
        """
        spec, counts = self.spec, np.asarray(tokens, dtype=np.int64)
        common = self._requests(rng, counts.size, domain)
        state = self._states(rng, common, counts)
        layers = len(self._gates)
        out = np.empty((len(state), layers, spec.top_k), dtype=np.int16)
        fresh = (1.0 - spec.layer_rho**2) ** 0.5
        for layer in range(layers):
            gates = self._gates[layer]
            logits = spec.scale * (state @ gates.T) + self._bias[layer]
            out[:, layer] = choose(rng, logits, spec.top_k)
            innovation = self._states(rng, rng.standard_normal(common.shape), counts)
            state = spec.layer_rho * state + fresh * innovation
        return out

    def _requests(
        self, rng: np.random.Generator, number: int, domain: int | None
    ) -> Float:
        """What the tokens of each request have in common, shape (requests, d)."""
        own = rng.standard_normal((number, self.spec.dimensions))
        if self.spec.domains == 1:
            return own
        drawn = rng.integers(self.spec.domains, size=number)
        topic = self._topics[drawn if domain is None else np.full(number, domain)]
        share = self.spec.domain_share
        mixed: Float = share**0.5 * topic + (1.0 - share) ** 0.5 * own
        return mixed

    def _states(
        self, rng: np.random.Generator, common: Float, counts: npt.NDArray[np.int64]
    ) -> Float:
        """States of all tokens: the request's part and an autoregressive own part."""
        spec = self.spec
        total, first = int(counts.sum()), np.cumsum(counts) - counts
        noise = rng.standard_normal((total, spec.dimensions))
        own = noise.copy()
        fresh = (1.0 - spec.token_phi**2) ** 0.5
        for step in range(1, int(counts.max(initial=0))):
            rows = first[counts > step] + step
            own[rows] = spec.token_phi * own[rows - 1] + fresh * noise[rows]
        shared = np.repeat(common, counts, axis=0)
        mixed: Float = (
            spec.request_share**0.5 * shared + (1.0 - spec.request_share) ** 0.5 * own
        )
        return mixed
