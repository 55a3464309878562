"""Expected share of a layer's experts that a batch touches, under skewed routing."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

_NEVER: Final = 1e-300  # instead of 0, which has no logarithm


@dataclass(frozen=True, slots=True)
class RoutingSkew:
    """Lognormal spread of a router's choices.

    Attributes:
        decode_skew: Sigma of expert popularity among tokens of different requests.
        prompt_skew: Sigma among tokens of one prompt, which favour the same experts.
        source: Where the two come from.
    """

    decode_skew: float
    prompt_skew: float
    source: str


UNIFORM = RoutingSkew(0.0, 0.0, "uniform router, by configuration")


@lru_cache(maxsize=1)
def _shipped() -> dict[str, dict[str, float | str]]:
    text = resources.files("workloads").joinpath("data/routing.toml").read_text()
    return tomllib.loads(text)


def routing_skew(model: str) -> RoutingSkew:
    """Skew measured for a model, or the default, which its ``source`` tells."""
    entry = _shipped().get(model, _shipped()["default"])
    return RoutingSkew(
        float(entry["decode_skew"]), float(entry["prompt_skew"]), str(entry["source"])
    )


class ExpertCoverage:
    """Closed form of the expected experts touched in one layer.

    Expert popularity is lognormal over the experts (sigma ``decode_skew``); a prompt
    multiplies it by its own lognormal preference, so that the total sigma within a
    prompt is ``prompt_skew``. A token of a decoding request includes expert e with
    probability p_e, independently; n tokens of one prompt share the prompt's
    preference. With D decode tokens and chunks of n_j prompt tokens

        touched = E * (1 - mean_e[(1 - p_e)^D * prod_j m_e(n_j)]),

    where m_e(n) averages (1 - p_e,prompt)^n over prompts. Lognormals are represented
    by equal-probability quantiles, so the result is deterministic.

    Args:
        num_experts: Experts per layer.
        top_k: Experts per token.
        skew: Spread of the router's choices.
    """

    _PROMPT_POINTS = 64

    def __init__(self, num_experts: int, top_k: int, skew: RoutingSkew) -> None:
        self.num_experts = num_experts
        popularity = _normal_quantiles(num_experts)[:, None]
        own_variance = max(skew.prompt_skew**2 - skew.decode_skew**2, 0.0)
        own = _normal_quantiles(self._PROMPT_POINTS)[None, :] * own_variance**0.5
        share = top_k / num_experts
        decode = _capped(np.exp(skew.decode_skew * popularity), share)
        prompt = _capped(np.exp(skew.decode_skew * popularity + own), share)
        self._miss_decode: Float = 1.0 - decode[:, 0]
        # exp of a product takes a fifteenth of a power's time
        self._log_miss_prompt: Float = np.log(np.maximum(1.0 - prompt, _NEVER))
        self._chunk_miss: dict[int, Float] = {}
        self._touched: dict[tuple[int, tuple[int, ...]], float] = {}

    def touched(self, decode_tokens: int, chunks: tuple[int, ...] = ()) -> float:
        """Expected distinct experts touched (0 .. num_experts), to 1e-6.

        Args:
            decode_tokens: Tokens that each belong to another request.
            chunks: Prompt tokens of each prompt in the batch.
        """
        key = (decode_tokens, chunks)
        cached = self._touched.get(key)
        if cached is None:
            miss = self._miss_decode**decode_tokens
            for tokens in chunks:
                miss = miss * self._chunk(tokens)
            cached = round(self.num_experts * (1.0 - float(miss.mean())), 6)
            self._touched[key] = cached
        return cached

    def _chunk(self, tokens: int) -> Float:
        miss = self._chunk_miss.get(tokens)
        if miss is None:
            miss = np.exp(tokens * self._log_miss_prompt).mean(axis=1)
            self._chunk_miss[tokens] = miss
        return miss


def _normal_quantiles(points: int) -> Float:
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / points) for i in range(points)])


def _capped(weights: Float, mean: float) -> Float:
    """Scale ``weights`` so that min(1, scale * weights) averages to ``mean``."""
    if mean >= 1.0:
        return np.ones_like(weights)
    low, high = 0.0, 1.0 / float(weights.min())
    for _ in range(200):
        scale = (low + high) / 2
        if float(np.minimum(1.0, scale * weights).mean()) < mean:
            low = scale
        else:
            high = scale
    return np.minimum(1.0, high * weights)
