"""The synthetic routing under which the public MoE tables were profiled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
_DRAWS = 20


@dataclass(frozen=True, slots=True)
class SyntheticLoad:
    """Expected load of the hottest rank in a profiled row.

    Attributes:
        touched: Experts with at least one token.
        padded_pairs: Token-expert pairs with each expert's rounded up to a tile.
        pairs: Token-expert pairs.
    """

    touched: float
    padded_pairs: float
    pairs: float


@lru_cache(maxsize=65536)
def synthetic_load(
    tokens: int, num_experts: int, top_k: int, ep: int, law: str, tile: int
) -> SyntheticLoad:
    """Load behind a row of the tables, by re-running their routing law.

    ``balanced`` spreads pairs evenly. ``power_law_A`` draws expert weights from a
    truncated power law of exponent A (support [0.01, 2] while pairs <= experts, else
    [1, 0.8 tokens]), scales them to the pair count, rounds, caps at one pair per
    token, and moves the rounding remainder to the least or from the most loaded
    experts; the hottest rank is the one measured (NVIDIA aiconfigurator, Apache-2.0,
    collector's routing law; restated, averaged over 20 draws).

    Args:
        tokens: Tokens of the row (global).
        num_experts: Experts in all.
        top_k: Experts per token.
        ep: Expert-parallel ranks.
        law: The row's ``distribution``.
        tile: Rows per tile of the grouped GEMM.
    """
    draws = _draws(tokens, num_experts, top_k, law)
    hottest = [
        max(np.split(draw, ep), key=lambda rank: float(rank.sum())) for draw in draws
    ]
    return SyntheticLoad(
        touched=float(np.mean([(rank > 0).sum() for rank in hottest])),
        padded_pairs=float(
            np.mean([(np.ceil(rank / tile) * tile).sum() for rank in hottest])
        ),
        pairs=float(np.mean([rank.sum() for rank in hottest])),
    )


@lru_cache(maxsize=4096)
def _draws(
    tokens: int, num_experts: int, top_k: int, law: str
) -> tuple[npt.NDArray[np.float64], ...]:
    """Pairs per expert; the same draws for every split and tile."""
    if law == "balanced":
        return (_balanced(tokens, num_experts, top_k),)
    exponent = float(law.removeprefix("power_law_"))
    rng = np.random.default_rng(1)
    return tuple(
        _power_law(rng, tokens, num_experts, top_k, exponent) for _ in range(_DRAWS)
    )


def _balanced(tokens: int, num_experts: int, top_k: int) -> Float:
    share, larger = divmod(tokens * top_k, num_experts)
    counts = np.full(num_experts, float(share))
    counts[:larger] += 1
    return counts


def _power_law(
    rng: np.random.Generator, tokens: int, num_experts: int, top_k: int, a: float
) -> Float:
    pairs = tokens * top_k
    low, high = (1.0, tokens * 0.8) if pairs > num_experts else (0.01, 2.0)
    uniform = rng.random(num_experts)
    power = 1.0 - a
    weights = (low**power + uniform * (high**power - low**power)) ** (1.0 / power)
    counts: Float = np.minimum(np.round(weights / weights.sum() * pairs), tokens)
    missing = int(pairs - counts.sum())
    return _lifted(counts, missing) if missing > 0 else -_lifted(-counts, -missing)


def _lifted(counts: Float, amount: int) -> Float:
    """Whole counts after adding 1 to the smallest, first on a tie, `amount` times."""
    ordered = np.sort(counts)
    totals = np.cumsum(ordered)
    sizes = np.arange(1, counts.size + 1)
    # What it takes to lift the smaller ones to each count, which never falls.
    lowest = int(np.searchsorted(ordered * sizes - totals, amount, side="right"))
    level = (totals[lowest - 1] + amount) // lowest
    lifted: Float = np.maximum(counts, level)
    rest = amount - int((lifted - counts).sum())
    lifted[np.flatnonzero(lifted == level)[:rest]] += 1
    return lifted
