"""Prompt and output lengths: quantile tables and vLLM's ``random``.

Every sampler reads the two streams one variate a request, so request k's lengths do
not depend on the arrival rate nor on how many requests are drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim.errors import ConfigError
from workloads.limits import MAX_TOKENS

Lengths = tuple[NDArray[np.int64], NDArray[np.int64]]


class LengthSampler(Protocol):
    """Draws the lengths of requests."""

    def sample(
        self, n: int, prompt_rng: np.random.Generator, output_rng: np.random.Generator
    ) -> Lengths:
        """Prompt and output tokens of ``n`` requests, each >= 1, shape (n,).

        The first m of n draws equal a draw of m from the same streams.
        """
        ...


@dataclass(frozen=True, slots=True)
class RandomLengths:
    """Uniform lengths as ``vllm bench serve --dataset-name random`` draws them.

    Integers on [floor(L(1-r)), ceil(L(1+r))], both ends included and at least 1; other
    tools read the same flag as [rL, L] (InferenceX).

    Attributes:
        input_len: Centre of the prompt lengths, tokens.
        output_len: Centre of the output lengths, tokens.
        range_ratio: r in [0, 1); 0 fixes both lengths.
    """

    input_len: int
    output_len: int
    range_ratio: float

    def sample(
        self, n: int, prompt_rng: np.random.Generator, output_rng: np.random.Generator
    ) -> Lengths:
        """Independent uniform lengths."""
        return (
            self._uniform(self.input_len, n, prompt_rng),
            self._uniform(self.output_len, n, output_rng),
        )

    def _uniform(
        self, centre: int, n: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        low = max(1, math.floor(centre * (1 - self.range_ratio)))
        high = max(1, math.ceil(centre * (1 + self.range_ratio)))
        return rng.integers(low, high, size=n, dtype=np.int64, endpoint=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileLengths:
    """Lengths from two quantile tables, tied by a Gaussian copula.

    Two standard normals with correlation ``correlation`` pass through the normal CDF
    and then through the piecewise-linear inverse CDFs (Nelsen, "An Introduction to
    Copulas", 2006, section 2.3).

    Attributes:
        name: What errors call the table.
        probability: Increasing, from 0 to 1, shape (q,).
        prompt_tokens: Prompt quantile at each probability, shape (q,).
        output_tokens: Output quantile at each probability, shape (q,).
        correlation: Correlation of the normal scores, in [-1, 1].

    Raises:
        ConfigError: If the tables are not quantile functions of lengths.
    """

    name: str
    probability: tuple[float, ...]
    prompt_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    correlation: float

    def __post_init__(self) -> None:
        p = self.probability
        if len(p) < 2 or p[0] != 0 or p[-1] != 1 or not _increases(p, strictly=True):
            raise self._error("probability", p, "increasing from 0 to 1")
        for key in ("prompt_tokens", "output_tokens"):
            values: tuple[int, ...] = getattr(self, key)
            in_range = all(1 <= v <= MAX_TOKENS for v in values)
            if len(values) != len(p) or not in_range or not _increases(values):
                allowed = f"{len(p)} non-decreasing integers in 1..{MAX_TOKENS}"
                raise self._error(key, values, allowed)
        if not -1 <= self.correlation <= 1:
            raise self._error("correlation", self.correlation, "-1..1")

    def sample(
        self, n: int, prompt_rng: np.random.Generator, output_rng: np.random.Generator
    ) -> Lengths:
        """Lengths with the table's margins and rank correlation."""
        rho = self.correlation
        prompt_score = prompt_rng.standard_normal(n)
        own_score = output_rng.standard_normal(n)
        output_score = rho * prompt_score + math.sqrt(1 - rho * rho) * own_score
        return (
            self._quantile(self.prompt_tokens, prompt_score),
            self._quantile(self.output_tokens, output_score),
        )

    def _quantile(
        self, tokens: tuple[int, ...], score: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        scaled = (score / math.sqrt(2)).tolist()
        u = 0.5 + 0.5 * np.fromiter(map(math.erf, scaled), np.float64, score.size)
        return np.rint(np.interp(u, self.probability, tokens)).astype(np.int64)

    def _error(self, key: str, value: object, allowed: str) -> ConfigError:
        return ConfigError(f"{self.name}: {key}: {value!r}; allowed: {allowed}")


def _increases(values: tuple[float, ...], *, strictly: bool = False) -> bool:
    return all(a < b or (a == b and not strictly) for a, b in pairwise(values))
