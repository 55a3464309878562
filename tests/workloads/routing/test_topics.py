"""Topics of a workload: how they mix, and how they change over time."""

from __future__ import annotations

import numpy as np
import pytest

from sim.errors import ConfigError
from sim.routing_stats import RoutingStats, make_stats
from workloads.routing.drift import Drift, domain_switches
from workloads.routing.fidelity import FullSampler
from workloads.routing.latent import LatentRouter, LatentSpec
from workloads.routing.presets import mixed, preset

A = make_stats(np.array([[1.0, 0.0], [0.5, 0.5]]), 1, np.array([[[0.5, 0.5], [0, 0]]]))
B = make_stats(np.array([[0.0, 1.0], [1.0, 0.0]]), 1, np.array([[[0, 0], [1.0, 0]]]))


def test_a_topic_fades_into_the_next() -> None:
    """Linear: a quarter of the way from a to b, three of four tokens are of a."""
    drift = Drift([(100, {"a": 1.0}), (200, {"b": 1.0})])
    assert drift.weights(0) == {"a": 1.0}
    assert drift.weights(125) == pytest.approx({"a": 0.75, "b": 0.25})
    assert drift.weights(10_000) == {"b": 1.0}
    stats = drift.stats({"a": A, "b": B}, 125)
    assert stats.load == pytest.approx(np.array([[0.75, 0.25], [0.625, 0.375]]))


def test_a_mix_is_the_weighted_mean_of_its_parts() -> None:
    """Weights need not sum to one; a topic without weight need not be there."""
    both = mixed({"a": A, "b": B}, {"a": 3.0, "b": 1.0, "c": 0.0})
    assert both.load == pytest.approx(np.array([[0.75, 0.25], [0.625, 0.375]]))
    assert both.transition == pytest.approx(np.array([[[0.375, 0.375], [0.25, 0.0]]]))
    assert both.domain == "a+b"
    alone = RoutingStats(B.load, 1, None, None, "")
    assert mixed({"a": A, "b": alone}, {"a": 1, "b": 1}).transition is None


def test_no_topic_and_no_period_are_refused() -> None:
    for topics, period_ns in (((), 5), (("a",), 0)):
        with pytest.raises(ConfigError, match="must be > 0"):
            domain_switches(topics, period_ns, 10)


def test_an_unknown_topic_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="arxiv"):
        preset("OLMoE-1B-7B").load(0, "arvix")


def test_a_routers_tokens_are_counted_whole() -> None:
    """Every token meets k experts in each layer, the more popular ones more often."""
    load = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]])
    rng = np.random.default_rng(0)
    router = LatentRouter(rng, LatentSpec(top_k=2, scale=0.5), load)
    counts = FullSampler(load, 2, router).draw(rng, 400)
    assert counts.sum(axis=1).tolist() == [800, 800]
    assert counts.max() <= 400
    assert counts.argmax(axis=1).tolist() == [0, 3]
