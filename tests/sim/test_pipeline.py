"""Stages, the period of a pipeline and micro-batches, by hand and by slow twins."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.micro_batches import MicroBatch, micro_batches
from sim.pipeline import period_ns
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.stages import pipeline_stages
from tests.sim.pricing import QUICK

Grid = list[list[int]]


@pytest.mark.parametrize(
    ("layers", "bounds"),
    [
        (3, [0, 2, 3]),
        (3, [0, 1, 2, 3]),
        (4, [0, 1, 3, 4]),
        (5, [0, 2, 4, 5]),
        (80, [0, 20, 40, 60, 80]),
        (61, [0, 15, 30, 46, 61]),
    ],
)
def test_layers_are_split_as_vllm_splits_them(layers: int, bounds: list[int]) -> None:
    """The cases of vLLM's test_pipeline_partition.py, and two models of its users."""
    stages = pipeline_stages(layers, len(bounds) - 1)
    assert [(s.first, s.last) for s in stages] == list(pairwise(bounds))
    assert [s.embeds for s in stages] == [True] + [False] * (len(stages) - 1)
    assert [s.heads for s in stages] == [False] * (len(stages) - 1) + [True]


def without_delay(times: Grid) -> int:
    return period_ns(times, [[0] * len(row) for row in times])


@pytest.mark.parametrize(
    ("times", "period"),
    [
        ([[7], [5], [2]], 14),  # one micro-batch: the sum of the stages
        ([[4, 4], [4, 4]], 8),  # full: both stages never wait
        ([[4], [4]], 8),  # half full: each waits half of the time
        ([[4, 4, 4], [4, 4, 4]], 12),
        ([[3, 3], [5, 5]], 10),  # the slower stage never waits
        ([[9, 1], [2, 2]], 11),  # the longer micro-batch, stage after stage
        ([[2, 6], [5, 1]], 8),
        # No stage and no micro-batch takes more than 2, but they alternate: from
        # micro-batch to micro-batch and stage to stage, six steps in two rounds.
        ([[1, 1, 0], [0, 1, 1], [1, 0, 1]], 3),
    ],
)
def test_rounds_by_hand(times: Grid, period: int) -> None:
    """Without time between stages."""
    assert without_delay(times) == period


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
@pytest.mark.parametrize("micro_batches_", [1, 2, 4, 6])
def test_equal_stages_wait_only_for_want_of_micro_batches(
    stages: int, micro_batches_: int
) -> None:
    """A round of m equal micro-batches on S equal stages takes max(m, S) of them."""
    times = [[10] * micro_batches_ for _ in range(stages)]
    assert without_delay(times) == 10 * max(stages, micro_batches_)


def test_sends_delay_a_micro_batch_and_no_stage() -> None:
    """Two stages of 4: alone 4 + 3 + 4; three in flight hide the send."""
    assert period_ns([[4], [4]], [[3], [0]]) == 11
    assert period_ns([[4, 4], [4, 4]], [[3, 3], [0, 0]]) == 11
    assert period_ns([[4] * 3] * 2, [[3] * 3, [0] * 3]) == 12


def greatest_cycle_mean(times: Grid, delays: Grid) -> Fraction:
    """Every simple cycle of the dependencies, one by one."""
    stages, parts = len(times), len(times[0])
    best = Fraction(0)

    def steps(s: int, j: int) -> Iterator[tuple[int, int, int, int]]:
        """Next stage and micro-batch, time until it may start, rounds later."""
        yield s, (j + 1) % parts, times[s][j], j + 1 == parts
        later = s + 1 == stages
        yield (s + 1) % stages, j, times[s][j] + delays[s][j], later

    def walk(at: tuple[int, int], seen: list[tuple[int, int]], w: int, r: int) -> None:
        nonlocal best
        for s, j, weight, rounds in steps(*at):
            if (s, j) == seen[0]:
                best = max(best, Fraction(w + weight, r + rounds))
            elif (s, j) not in seen and (s, j) > seen[0]:
                walk((s, j), [*seen, (s, j)], w + weight, r + rounds)

    for s in range(stages):
        for j in range(parts):
            walk((s, j), [(s, j)], 0, 0)
    return best


def simulated_period(times: Grid, delays: Grid, rounds: int = 400) -> float:
    """Mean round of stages that serve micro-batches as events, after some rounds."""
    stages, parts = len(times), len(times[0])
    due = [0] * stages  # how many micro-batches a stage has begun
    free = [0] * stages
    arrived = {(0, j): 0 for j in range(parts)}
    events = [0]
    ends: list[int] = []
    while len(ends) < rounds * parts:
        now = heapq.heappop(events)
        for s in range(stages):
            j = due[s] % parts
            if free[s] > now or arrived.get((s, j), now + 1) > now:
                continue
            del arrived[s, j]
            due[s] += 1
            free[s] = now + times[s][j]
            there = free[s] + delays[s][j]
            arrived[(s + 1) % stages, j] = there
            heapq.heappush(events, free[s])
            heapq.heappush(events, there)
            if s + 1 == stages:
                ends.append(there)
    half = rounds // 2
    return (ends[rounds * parts - 1] - ends[half * parts - 1]) / (rounds - half)


def grids(most: int, largest: int) -> st.SearchStrategy[tuple[Grid, Grid]]:
    def of(size: tuple[int, int]) -> st.SearchStrategy[tuple[Grid, Grid]]:
        row = st.lists(st.integers(1, largest), min_size=size[1], max_size=size[1])
        grid = st.lists(row, min_size=size[0], max_size=size[0])
        return st.tuples(grid, grid)

    return st.tuples(st.integers(1, most), st.integers(1, most)).flatmap(of)


@QUICK
@given(grids(3, 12))
def test_the_period_is_the_greatest_mean_of_a_cycle(grid: tuple[Grid, Grid]) -> None:
    """Rounded up, exactly."""
    assert period_ns(*grid) == ceil(greatest_cycle_mean(*grid))


@QUICK
@given(grids(5, 10_000))
def test_rounds_follow_each_other_at_that_period(grid: tuple[Grid, Grid]) -> None:
    """A simulation by events needs that long for a round, to a hundredth."""
    simulated = simulated_period(*grid)
    assert period_ns(*grid) == pytest.approx(simulated, rel=1e-2, abs=1)


def spans(*chunks: PrefillChunk) -> StepPlan:
    return StepPlan((LayerSpan(0, 4, chunks),))


def split(
    plan: StepPlan, decoding: int = 0, context: int = 0, budget: int = 100
) -> list[MicroBatch]:
    return micro_batches(plan, decoding, context, most=2, budget=budget)


def chunks_in(part: MicroBatch) -> Sequence[PrefillChunk]:
    return part.spans[0].prefill


def test_decodes_are_spread_evenly() -> None:
    """Five requests with 103 keys: two and three, the context in proportion."""
    parts = split(spans(), 5, 103)
    assert [(p.decoding, p.context_tokens) for p in parts] == [(2, 41), (3, 62)]
    assert [p.decoding for p in split(spans(), 1, 10)] == [1]  # no empty ones


def test_chunks_stay_whole_where_they_fit() -> None:
    """60, 50 and 40 tokens: the third joins the second."""
    plan = spans(*(PrefillChunk(i, 0, n) for i, n in enumerate((60, 50, 40))))
    first, second = split(plan)
    assert [c.request_id for c in chunks_in(first)] == [0]
    assert [c.request_id for c in chunks_in(second)] == [1, 2]
    assert len(split(spans(PrefillChunk(0, 8, 100)))) == 1


def test_what_does_not_fit_is_cut_into_equal_shares_in_order() -> None:
    """150 and 30 tokens: 90 and 60 + 30, each piece after the one before."""
    first, second = split(spans(PrefillChunk(0, 8, 150), PrefillChunk(1, 0, 30)))
    assert chunks_in(first) == (PrefillChunk(0, 8, 90),)
    assert chunks_in(second) == (PrefillChunk(0, 98, 60), PrefillChunk(1, 0, 30))


def test_pieces_are_the_same_in_all_spans() -> None:
    """A chunk in all layers (hybrid's lane) beside one in a group of them."""
    lane, flying = PrefillChunk(0, 0, 30), PrefillChunk(1, 0, 150)
    plan = StepPlan((LayerSpan(0, 2, (lane,)), LayerSpan(2, 4, (flying, lane))))
    for part in split(plan):
        in_lane = [c for c in part.spans[1].prefill if c.request_id == 0]
        assert list(part.spans[0].prefill) == in_lane


@QUICK
@given(
    tokens=st.lists(st.integers(1, 400), max_size=6),
    decoding=st.integers(0, 9),
    most=st.integers(1, 5),
    budget=st.integers(1, 500),
)
def test_micro_batches_hold_the_batch_once(
    tokens: list[int], decoding: int, most: int, budget: int
) -> None:
    """Rows, keys and tokens are conserved; none is over the budget if all fit."""
    context = 37 * decoding
    plan = spans(*(PrefillChunk(i, 5 * i, n) for i, n in enumerate(tokens)))
    parts = micro_batches(plan, decoding, context, most=most, budget=budget)
    assert sum(p.decoding for p in parts) == decoding
    assert sum(p.context_tokens for p in parts) == context
    pieces = [c for p in parts for c in chunks_in(p)]
    for i, n in enumerate(tokens):
        mine = [c for c in pieces if c.request_id == i]
        starts = [5 * i, *(c.start + c.tokens for c in mine)]
        assert [c.start for c in mine] == starts[:-1]
        assert starts[-1] == 5 * i + n
    loads = [sum(c.tokens for c in chunks_in(p)) for p in parts]
    if sum(tokens) <= most * budget:
        assert max(loads, default=0) <= budget
    assert all(p.decoding or chunks_in(p) for p in parts)
