"""Expert coverage: its closed form against sampling, published counts and limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import cases
from workloads.coverage import UNIFORM, ExpertCoverage, RoutingSkew, routing_skew

QUICK = cases(12)
QWEN = "Qwen/Qwen3-30B-A3B"
EXPERTS, TOP_K = 128, 8


@pytest.fixture(scope="module")
def qwen() -> ExpertCoverage:
    return ExpertCoverage(EXPERTS, TOP_K, routing_skew(QWEN))


def scale_of(weights: np.ndarray, mean: float) -> float:
    """c such that min(1, c w) averages to ``mean``, by bisection."""
    low, high = 0.0, 1.0 / float(weights.min())
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if np.minimum(1.0, middle * weights).mean() < mean:
            low = middle
        else:
            high = middle
    return high


def sampled(skew: RoutingSkew, decode_tokens: int, chunks: tuple[int, ...]) -> float:
    """Touched experts of batches drawn from the law the closed form integrates.

    Popularities are lognormal; each prompt multiplies them by preferences of its own;
    inclusion probabilities average to top_k / experts over experts and prompts.
    Stratified popularities (one draw per 1/128 of the law) keep the noise small.
    """
    rng = np.random.default_rng(11)
    layers = 1500
    strata = (np.arange(EXPERTS) + 0.5) / EXPERTS
    normal = np.sort(rng.standard_normal(2_000_000))
    popularity = normal[(strata * normal.size).astype(int)]
    own_sigma = (skew.prompt_skew**2 - skew.decode_skew**2) ** 0.5
    share = TOP_K / EXPERTS
    shared = np.exp(skew.decode_skew * popularity)
    anyone = shared * np.exp(own_sigma * rng.standard_normal((5000, EXPERTS)))
    decode_scale, prompt_scale = scale_of(shared, share), scale_of(anyone, share)
    decode = np.minimum(1.0, decode_scale * shared)
    hit = rng.binomial(decode_tokens, decode, (layers, EXPERTS)) > 0
    for tokens in chunks:
        own = np.exp(own_sigma * rng.standard_normal((layers, EXPERTS)))
        hit |= rng.binomial(tokens, np.minimum(1.0, prompt_scale * shared * own)) > 0
    return float(hit.sum(axis=1).mean())


@pytest.mark.parametrize(
    ("decode_tokens", "chunks"),
    [
        (1, ()),
        (16, ()),
        (128, ()),
        (0, (1,)),
        (0, (64,)),
        (0, (512,)),
        (0, (8192,)),
        (32, (400, 80)),
        (8, (20, 20, 20)),
    ],
)
def test_closed_form_equals_sampling(
    qwen: ExpertCoverage, decode_tokens: int, chunks: tuple[int, ...]
) -> None:
    """Within 1 % of 1500 sampled layers."""
    law = sampled(routing_skew(QWEN), decode_tokens, chunks)
    assert qwen.touched(decode_tokens, chunks) == pytest.approx(law, rel=0.01)


# Expert-load counter of the layered-prefill code: share of expert bytes one chunk of
# one prompt reads (scale-snu/layered-prefill 427f441).
CHUNK_COVERAGE = {512: 82.4, 1024: 87.6, 2048: 92.0, 4096: 94.9, 8192: 98.5}


@pytest.mark.parametrize("tokens", sorted(CHUNK_COVERAGE))
def test_one_prompt_touches_the_counted_share(
    qwen: ExpertCoverage, tokens: int
) -> None:
    """Within 2 points of the five counted shares."""
    share = 100 * qwen.touched(0, (tokens,)) / EXPERTS
    assert share == pytest.approx(CHUNK_COVERAGE[tokens], abs=2.0)


@pytest.mark.parametrize(
    ("batch", "low", "high"),
    [(16, 41, 50), (32, 55, 55), (64, 70, 70), (128, 86.3, 86.3)],
)
def test_decode_batches_touch_the_published_share(
    qwen: ExpertCoverage, batch: int, low: float, high: float
) -> None:
    """ShareGPT decode batches (arXiv 2510.08055, Table 1), within 6 points."""
    assert low - 6 <= 100 * qwen.touched(batch) / EXPERTS <= high + 6


def test_mixed_requests_touch_more_than_one_prompt(qwen: ExpertCoverage) -> None:
    """128 tokens of different requests touch more experts than 512 of one prompt."""
    assert qwen.touched(128) > qwen.touched(0, (512,)) > qwen.touched(0, (128,))


@pytest.mark.parametrize(("experts", "top_k"), [(128, 8), (32, 4), (8, 2), (4, 4)])
def test_uniform_router_is_the_textbook_formula(experts: int, top_k: int) -> None:
    """E (1 - (1 - k / E)^n), whoever the n tokens belong to."""
    coverage = ExpertCoverage(experts, top_k, UNIFORM)
    for n in (1, 2, 16, 64, 500):
        expected = experts * (1 - (1 - top_k / experts) ** n)
        assert coverage.touched(n) == pytest.approx(expected, abs=1e-5)
        assert coverage.touched(0, (n,)) == pytest.approx(expected, abs=1e-5)
        assert coverage.touched(n, (n,)) == pytest.approx(
            experts * (1 - (1 - top_k / experts) ** (2 * n)), abs=1e-5
        )


SKEWS = st.builds(
    lambda decode, more: RoutingSkew(decode, decode + more, "drawn"),
    decode=st.floats(0, 2.5),
    more=st.floats(0, 1.5),
)
SHAPES = st.sampled_from([(128, 8), (32, 4), (8, 2)])


@QUICK
@given(skew=SKEWS, shape=SHAPES)
def test_one_token_touches_top_k(skew: RoutingSkew, shape: tuple[int, int]) -> None:
    """A decode token or a prompt of one token: k experts, within 1 %."""
    coverage = ExpertCoverage(*shape, skew)
    assert coverage.touched(1) == pytest.approx(shape[1], rel=0.01)
    assert coverage.touched(0, (1,)) == pytest.approx(shape[1], rel=0.01)


@QUICK
@given(
    skew=SKEWS,
    shape=SHAPES,
    decode=st.integers(0, 200),
    chunks=st.lists(st.integers(1, 4000), max_size=3),
    more=st.integers(1, 500),
)
def test_more_tokens_touch_more_experts_up_to_all(
    skew: RoutingSkew, shape: tuple[int, int], decode: int, chunks: list[int], more: int
) -> None:
    """Monotone in each argument, within [0, E]; the order of prompts is irrelevant."""
    coverage = ExpertCoverage(*shape, skew)
    now = coverage.touched(decode, tuple(chunks))
    assert 0 <= now <= shape[0]
    assert coverage.touched(decode + more, tuple(chunks)) >= now - 1e-6
    assert coverage.touched(decode, (*chunks, more)) >= now - 1e-6
    longer = tuple(tokens + more for tokens in chunks)
    assert coverage.touched(decode, longer) >= now - 1e-6
    backwards = coverage.touched(decode, tuple(reversed(chunks)))
    assert backwards == pytest.approx(now, abs=2e-6)


@QUICK
@given(skew=SKEWS, first=st.integers(1, 2000), second=st.integers(1, 2000))
def test_two_prompts_touch_more_than_one_as_long(
    skew: RoutingSkew, first: int, second: int
) -> None:
    """Two preferences cover more than one (Jensen)."""
    coverage = ExpertCoverage(32, 4, skew)
    together = coverage.touched(0, (first + second,))
    assert coverage.touched(0, (first, second)) >= together - 1e-6


def test_nothing_touches_nothing(qwen: ExpertCoverage) -> None:
    """An empty batch reads no expert."""
    assert qwen.touched(0) == 0


def test_skew_of_an_unknown_model_says_that_it_is_transferred() -> None:
    """Shipped skews name their source; others fall back to Qwen3-30B-A3B's."""
    known, other = routing_skew(QWEN), routing_skew("somebody/new-moe")
    assert (known.decode_skew, known.prompt_skew) == (1.4, 2.1)
    assert "2510.08055" in known.source
    assert (other.decode_skew, other.prompt_skew) == (1.4, 2.1)
    assert "transferred" in other.source
