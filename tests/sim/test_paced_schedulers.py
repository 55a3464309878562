"""Policies that keep a target for the iteration, and the lane of the hybrid."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.sim.pricing import (
    QUICK,
    Scenario,
    Served,
    limits,
    requests,
    scenarios,
    serve,
)

# 4 layers; an iteration takes 100 ns + 10 per decoding request + 1 per prompt token and
# layer.


def chart(served: Served) -> list[tuple[int, int, dict[int, int], object]]:
    return [
        (start, end, step.chunks, step.prefill_layers)
        for (start, end), step in zip(served.spans_ns(), served.steps, strict=True)
    ]


def test_adaptive_layered_by_hand() -> None:
    """Alone all layers; beside one decode 110 + 120 a layer up to 400, one at least."""
    work = requests((0, 100, 20), (100, 120, 1), (600, 300, 1))
    served = serve("adaptive-layered-prefill", Scenario(work, limits(), target_ns=400))
    assert chart(served)[:8] == [
        (0, 500, {0: 100}, (0, 4)),  # 100 + 400, and nobody is kept waiting
        (500, 850, {1: 120}, (0, 2)),  # 110 + 2 x 120; a third layer would make 470
        (850, 1200, {1: 120}, (2, 4)),
        (1200, 1610, {2: 300}, (0, 1)),  # 110 + 300: too long, but prompts get on
        (1610, 2020, {2: 300}, (1, 2)),
        (2020, 2430, {2: 300}, (2, 3)),
        (2430, 2840, {2: 300}, (3, 4)),
        (2840, 2950, {}, None),
    ]


def test_dynamic_chunks_by_hand() -> None:
    """Tiles of 64 tokens: 110 + 4 x 128 is the most below 700, 110 + 4 x 64 of 300."""
    work = requests((0, 100, 20), (100, 200, 1))
    for target_ns, expected in (
        (700, [(500, 1122, {1: 128}), (1122, 1520, {1: 72}), (1520, 1630, {})]),
        (300, [(500, 866, {1: 64}), (866, 1232, {1: 64}), (1232, 1598, {1: 64})]),
    ):
        case = Scenario(work, limits(), target_ns=target_ns)
        served = serve("dynamic-chunked-prefill", case)
        assert [row[:3] for row in chart(served)[:4]] == [(0, 500, {0: 100}), *expected]


def test_the_lane_of_the_hybrid_by_hand() -> None:
    """Short prompts pass a long one in flight; a long one at the head closes the lane.

    600 tokens take 2 groups: at 1300 the lane of 512 takes request 1, then 2 is too
    long for what is left of it, and 3 may not overtake 2.
    """
    work = requests((0, 600, 1), (10, 300, 1), (20, 400, 1), (30, 5, 1))
    served = serve("hybrid-prefill", Scenario(work, limits(), groups=4))
    assert [row[:3] for row in chart(served)] == [
        (0, 1300, {0: 600}),
        (1300, 3800, {0: 600, 1: 300}),  # 100 + 2 x 600 + 4 x 300
        (3800, 5520, {2: 400, 3: 5}),  # 405 tokens in one group
    ]


def test_the_lane_fills_to_the_last_token_by_hand() -> None:
    """300 and 212 tokens are 512; a prompt of 5 more waits."""
    work = requests((0, 600, 1), (10, 300, 1), (20, 212, 1), (30, 5, 1))
    served = serve("hybrid-prefill", Scenario(work, limits(), groups=4))
    assert [row[:3] for row in chart(served)] == [
        (0, 1300, {0: 600}),
        (1300, 4648, {0: 600, 1: 300, 2: 212}),  # 100 + 2 x 600 + 4 x 512
        (4648, 4768, {3: 5}),
    ]


def test_dynamic_chunks_share_their_tiles_by_hand() -> None:
    """Two tiles, as above, are prompts of 50 and 50 and the first 28 of the third."""
    work = requests((0, 100, 20), (100, 50, 1), (100, 50, 1), (100, 200, 1))
    case = Scenario(work, limits(), target_ns=700)
    served = serve("dynamic-chunked-prefill", case)
    assert [row[:3] for row in chart(served)[:4]] == [
        (0, 500, {0: 100}),
        (500, 1122, {1: 50, 2: 50, 3: 28}),
        (1122, 1744, {3: 128}),
        (1744, 2030, {3: 44}),
    ]


def durations(served: Served) -> list[int]:
    return [end - start for start, end in served.spans_ns()]


@QUICK
@given(scenario=scenarios(), target_ns=st.integers(1, 2000))
def test_adaptive_groups_are_the_largest_that_keep_the_target(
    scenario: Scenario, target_ns: int
) -> None:
    case = replace(scenario, target_ns=target_ns)
    served = serve("adaptive-layered-prefill", case)
    for step, took in zip(served.steps, durations(served), strict=True):
        decodes = len(step.decoding) - len(step.plan.preempted)
        if step.prefill_layers is None:
            continue
        first, last = step.prefill_layers
        tokens = sum(step.chunks.values())
        one_more = took + case.pricer.token_layer_ns * tokens
        whole = last == case.at.num_layers
        assert decodes or whole
        if decodes:
            assert took <= target_ns or last == first + 1
            assert whole or one_more > target_ns


@QUICK
@given(scenario=scenarios(), target_ns=st.integers(1, 2000))
def test_dynamic_chunks_are_the_largest_that_keep_the_target(
    scenario: Scenario, target_ns: int
) -> None:
    """With tiles of one token: what was left out would have broken the target.

    Nothing else bounds the chunk where budget, slots and blocks are roomy.
    """
    at = replace(scenario.at, max_num_batched_tokens=10_000, max_num_seqs=64)
    case = replace(scenario, at=at, num_blocks=100_000, target_ns=target_ns, scale=200)
    served = serve("dynamic-chunked-prefill", case)
    for step, took in zip(served.steps, durations(served), strict=True):
        if not step.chunks or not step.decoding:
            continue
        assert took <= target_ns or step.entering == 1
        owed = sum(queued.tokens for queued in step.waiting)
        owed += sum(tokens for _, tokens, _ in step.prefilling)
        more_ns = case.pricer.token_layer_ns * at.num_layers
        begun = {c.request_id: c.start for s in step.plan.spans for c in s.prefill}
        if step.entering + sum(begun.values()) < owed:
            assert took + more_ns > target_ns


@QUICK
@given(scenario=scenarios(max_replicas=2))
def test_without_a_lane_the_hybrid_is_layered_prefill(scenario: Scenario) -> None:
    case = replace(scenario, lane_tokens=0)
    hybrid, layered = serve("hybrid-prefill", case), serve("layered-prefill", case)
    assert hybrid.tokens == layered.tokens


@QUICK
@given(scenario=scenarios())
def test_a_tight_target_makes_groups_of_one_layer(scenario: Scenario) -> None:
    """1 ns cannot be kept: while somebody decodes each layer is a group of its own."""
    case = replace(scenario, target_ns=1, pricer=replace(scenario.pricer, base_ns=2))
    for step in serve("adaptive-layered-prefill", case).steps:
        if step.decoding and not step.plan.preempted and step.prefill_layers:
            first, last = step.prefill_layers
            assert last == first + 1
