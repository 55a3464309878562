"""Generators against closed forms and against published routing figures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim.placement.eplb import rebalance
from sim.placement.placement import ExpertPlacement
from sim.routing_choice import inclusion, observed_inclusion
from sim.routing_stats import RoutingStats
from workloads.routing.choose import choose
from workloads.routing.coverage import expected_touched
from workloads.routing.drift import domain_switches
from workloads.routing.fidelity import CountsSampler, FullSampler, PoolSampler
from workloads.routing.measure import distinct_experts, measure
from workloads.routing.popularity import dirichlet_load
from workloads.routing.presets import preset


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_choice_without_replacement_is_successive_drawing() -> None:
    weights = np.array([0.5, 0.3, 0.2])
    drawn = choose(_rng(), np.broadcast_to(np.log(weights), (200_000, 3)), 2)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    first_then_second = ((drawn[:, 0] == 0) & (drawn[:, 1] == 1)).mean()
    assert first_then_second == pytest.approx(0.5 * 0.3 / 0.5, abs=0.005)


def test_inclusion_sums_to_k_and_is_near_sampling() -> None:
    load = dirichlet_load(_rng(3), 1, 64, 1.0)
    pi = inclusion(load, 8)
    assert pi.sum() == pytest.approx(8.0)
    drawn = choose(_rng(), np.broadcast_to(np.log(load[0]), (40_000, 64)), 8)
    sampled = np.bincount(drawn.ravel(), minlength=64) / 40_000
    error = np.abs(pi[0] / sampled - 1)[sampled > 0.005]
    assert np.median(error) < 0.02
    assert error.max() < 0.12


@pytest.mark.parametrize("tokens", [1, 8, 32, 128, 512])
def test_independent_coverage_equals_sampling_within_a_percent(tokens: int) -> None:
    load = dirichlet_load(_rng(3), 4, 128, 0.76)
    pool = choose(_rng(5), np.broadcast_to(np.log(load), (30_000, 4, 128)), 8)
    pi = observed_inclusion(measure(pool, 128, pairs=False).load, 8)
    rows = _rng(6)
    sampled = np.mean(
        [
            distinct_experts(pool[rows.integers(len(pool), size=tokens)], 128).mean()
            for _ in range(400)
        ]
    )
    assert expected_touched(pi, tokens).mean() == pytest.approx(sampled, rel=0.01)


def test_request_coverage_equals_beta_binomial_sampling_within_a_percent() -> None:
    pi, c, tokens = np.array([[0.02, 0.1, 0.4]]), 40.0, 64
    rng = _rng(2)
    own = rng.beta(c * pi[0], c * (1 - pi[0]), size=(200_000, 3))
    sampled = (rng.binomial(tokens, own) > 0).mean(axis=0).sum()
    closed = expected_touched(pi, 0, (tokens,), c)[0]
    assert closed == pytest.approx(sampled, rel=0.01)
    independent = expected_touched(pi, 0, (tokens,), math.inf)[0]
    assert closed < independent


def test_one_request_of_qwen3_touches_what_was_published() -> None:
    """A 512-token chunk of one prompt touches 82 % (layered-prefill counters)."""
    model = preset("Qwen3-30B-A3B")
    rng = _rng(1)
    router = model.router(0)
    routed = [distinct_experts(router.route(rng, [512]), 128) for _ in range(4)]
    assert 0.75 <= np.mean(routed) / 128 <= 0.85
    pi = observed_inclusion(model.load(0), 8)
    closed = expected_touched(pi, 0, (512,), model.concentration).mean() / 128
    assert 0.75 <= closed <= 0.85


def test_decode_coverage_is_within_six_points_of_the_facts() -> None:
    """Real Qwen3-30B-A3B popularity, independent tokens: 47.5/62/74.6 %; Table 1 of
    arXiv 2510.08055 reaches 86.3 % at 128."""
    pi = observed_inclusion(preset("Qwen3-30B-A3B").load(0), 8)
    for batch, share in ((16, 0.475), (32, 0.62), (64, 0.746), (128, 0.863)):
        touched = expected_touched(pi, batch).mean() / 128
        assert touched == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("eplb", [False, True])
def test_deepseek_imbalance_is_within_seven_percent_of_measured(eplb: bool) -> None:
    """PAR of an iteration of 512 tokens at EP 32 to 256 (NoWei, ShareGPT)."""
    model = preset("DeepSeek-R1")
    measured = model.measured_par_eplb if eplb else model.measured_par
    load = np.concatenate([model.load(seed) for seed in range(4)])
    sampler = CountsSampler(load, model.top_k)
    rng = _rng(9)
    draws = [sampler.draw(rng, model.tokens_per_iteration) for _ in range(6)]
    for gpus, value in measured.items():
        slots = 256 + (gpus if eplb else 0)
        table = rebalance(load, slots, groups=1, nodes=1, gpus=gpus)
        if not eplb:
            table = np.tile(np.arange(256, dtype=np.int32), (len(load), 1))
        shares = ExpertPlacement(table, 256, gpus).even_shares()
        par = []
        for counts in draws:
            ranks = np.einsum("le,leg->lg", counts, shares)
            par.append((ranks.max(axis=1) / ranks.mean(axis=1)).mean())
        assert np.mean(par) == pytest.approx(value, rel=0.07)


def test_popularity_of_presets_has_the_measured_imbalance() -> None:
    for name in ("Qwen3-30B-A3B", "Qwen3-Next-80B-A3B", "Qwen3-235B-A22B"):
        model = preset(name)
        load = np.concatenate([model.load(seed) for seed in range(3)])
        for gpus, par in model.measured_par.items():
            ranks = load.reshape(len(load), gpus, -1).sum(axis=2) * gpus
            assert ranks.max(axis=1).mean() == pytest.approx(par, rel=0.12)


def test_domains_differ_as_much_as_measured() -> None:
    model = preset("OLMoE-1B-7B")
    loads = [model.load(0, name) for name in model.domain_alpha]
    apart = [
        np.abs(a - b).sum(axis=1).mean() / 2
        for i, a in enumerate(loads)
        for b in loads[i + 1 :]
    ]
    assert 0.17 <= min(apart) <= max(apart) <= 0.70


def test_three_fidelities_agree_on_the_mean() -> None:
    load = dirichlet_load(_rng(4), 2, 16, 2.0)
    pool = choose(_rng(5), np.broadcast_to(np.log(load), (60_000, 2, 16)), 4)
    observed = measure(pool, 16, pairs=False).load
    samplers = (
        CountsSampler(observed, 4),
        PoolSampler(pool, 16),
        FullSampler(load, 4),
    )
    for sampler in samplers:
        rng = _rng(7)
        mean = np.mean([sampler.draw(rng, 500) for _ in range(60)], axis=0)
        assert mean == pytest.approx(observed * 2000, rel=0.06, abs=3.0)


def test_statistics_of_a_preset_agree_with_themselves() -> None:
    stats = preset("OLMoE-1B-7B").stats(tokens=512)
    assert isinstance(stats, RoutingStats)
    assert stats.transition is not None
    assert stats.transition.sum(axis=2) == pytest.approx(stats.load[:-1], abs=1e-9)
    assert stats.transition.sum(axis=1) == pytest.approx(stats.load[1:], abs=1e-6)


def test_drift_goes_from_topic_to_topic() -> None:
    drift = domain_switches(("a", "b"), period_ns=100, until_ns=400)
    assert drift.weights(50) == {"a": 1.0}
    assert drift.weights(150) == {"b": 1.0}
    assert drift.weights(250) == {"a": 1.0}
