"""The router by prefix: its rule by hand, its memory, and sessions that stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from sim.prefix import Prefix
from sim.routers import ROUTERS, Loads
from sim.routers.prefix_affinity import PrefixAffinity
from tests.sim.pricing import Scenario, limits, serve
from tests.sim.test_sessions import talks


def ask(
    router: PrefixAffinity,
    loads: Sequence[int],
    segments: tuple[int, ...] = (),
    tokens: int = 100,
) -> int:
    """Route a prompt of segments of 10 tokens each, and others up to ``tokens``."""
    ends = tuple(range(10, 10 * len(segments) + 1, 10))
    return router.route(Loads(loads, [0] * len(loads), Prefix(segments, ends), tokens))


def test_the_longest_prefix_wins_over_load() -> None:
    router = PrefixAffinity()
    assert ask(router, [0, 0, 0], (1, 2)) == 0
    assert ask(router, [1, 0, 0], (3, 4)) == 1
    assert ask(router, [5, 9, 0], (3, 4, 5), 50) == 1
    assert ask(router, [5, 9, 0], (1, 2), 50) == 0
    assert ask(router, [5, 9, 0], (6,), 10) == 2


@pytest.mark.parametrize(("tokens", "chosen"), [(66, 1), (67, 0)])
def test_a_small_part_of_the_prompt_does_not_count(tokens: int, chosen: int) -> None:
    """20 tokens were seen: over 0.3 of 66, not of 67."""
    router = PrefixAffinity()
    assert ask(router, [1, 0], (1, 2)) == 1
    assert ask(router, [0, 1], (1, 2, 3), tokens) == chosen


@pytest.mark.parametrize(
    ("loads", "chosen"), [([64, 0], 0), ([65, 0], 1), ([195, 130], 0), ([196, 130], 1)]
)
def test_uneven_load_wins(loads: list[int], chosen: int) -> None:
    """By over 64 requests and to over 1.5 times as many, both."""
    router = PrefixAffinity()
    assert ask(router, [0, 0], (1, 2), 20) == 0
    assert ask(router, loads, (1, 2), 20) == chosen


def test_of_equals_the_less_loaded() -> None:
    """After uneven load spread a prefix over both; then the lower index."""
    router = PrefixAffinity()
    assert [ask(router, at, (1, 2), 20) for at in ([0, 9], [99, 0])] == [0, 1]
    assert [ask(router, at, (1, 2), 20) for at in ([2, 1], [1, 2], [1, 1])] == [1, 0, 0]


def test_nothing_in_common_goes_by_load() -> None:
    router = PrefixAffinity()
    assert [ask(router, at) for at in ([1, 0], [0, 0], [2, 1])] == [1, 0, 1]


def test_the_end_of_what_is_least_recently_used_is_forgotten() -> None:
    """Room for four segments: 3 goes, then 2; what was asked again stays."""
    router = PrefixAffinity(max_tree_tokens=40)
    assert ask(router, [0, 1], (1, 2, 3), 30) == 0
    assert ask(router, [0, 1], (7, 8), 20) == 0  # 3 is forgotten
    assert ask(router, [9, 0], (1, 2, 3), 40) == 0  # 20 of 40; 8 is forgotten
    assert ask(router, [9, 0], (7, 8), 34) == 1  # at most 10 of 34


def test_a_session_stays_where_it_began() -> None:
    """Every turn finds what its replica stored, down to a block; by turns it does not.

    Each begins while the ones before are served, at the least loaded replica.
    """
    turns = [(40, 8, 5000), (10, 8, 700), (10, 8, 900), (10, 8, 1100)]
    other = [(44, 8, 5000), (12, 8, 800), (12, 8, 1000), (12, 8, 1200)]
    case = Scenario(
        talks((0, turns), (10, other), (20, turns)),
        limits(block_size=4),
        replicas=2,
        prefix_caching=True,
    )
    stays = serve("orca", replace(case, router="prefix-affinity")).run.records
    assert [record.replica for record in stays] == [*[0] * 4, *[1] * 4, *[0] * 4]
    for before, record in pairwise(stays):
        if record.request.think_ns is not None:
            said = before.request.prompt_tokens + before.request.output_tokens
            assert record.cached_tokens == (said - 1) // 4 * 4
    turns_taken = serve("orca", replace(case, router="round-robin")).run.records
    found = [sum(r.cached_tokens for r in records) for records in (stays, turns_taken)]
    assert found[0] > found[1]


def test_the_registry_makes_new_ones() -> None:
    first, second = (ROUTERS["prefix-affinity"]() for _ in range(2))
    assert first is not second
