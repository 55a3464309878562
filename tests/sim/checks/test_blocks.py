"""A block of decode iterations is one event and stands for all of them."""

from __future__ import annotations

from dataclasses import replace
from operator import add

import pytest
from hypothesis import given

from sim.errors import InvariantError
from sim.events import Arrived, IterationsEnded, IterationStarted, Queued, Sent
from sim.plan import StepPlan
from sim.schedulers import SCHEDULERS
from sim.step import StepCost
from tests.sim.checks.streams import Events, altered, busy, hold, nth, recorded
from tests.sim.pricing import (
    QUICK,
    LinearPricer,
    Scenario,
    limits,
    requests,
    scenarios,
)
from tests.sim.test_fast_forward import ManyPricer

every_scheduler = pytest.mark.parametrize("name", sorted(SCHEDULERS))


def only_decodes(plan: StepPlan) -> bool:
    return not plan.preempted and not any(span.prefill for span in plan.spans)


def added(a: StepCost, b: StepCost) -> StepCost:
    return StepCost(*map(add, a, b))


def follows(end: IterationsEnded, plans: tuple[StepPlan, StepPlan]) -> bool:
    """Whether the iteration after this end could have been of the same block."""
    return not end.finished and all(map(only_decodes, plans))


def merged(events: Events) -> Events:
    """Join back-to-back decode-only iterations, as a fast-forward would report them."""
    out: Events = []
    starts = [e for e in events if isinstance(e, IterationStarted)]
    plans = [start.plan for start in starts]
    iteration, first, done = -1, None, None
    for event in events:
        if isinstance(event, IterationStarted):
            iteration += 1
            if done is not None:
                continue
            first = event
        elif isinstance(event, IterationsEnded):
            if done is not None:
                event = replace(  # noqa: PLW2901
                    event,
                    end_ns=(*done.end_ns, *event.end_ns),
                    cost=added(done.cost, event.cost),
                )
            pair = plans[iteration : iteration + 2]
            joins = len(pair) == 2 and starts[iteration + 1].time_ns == event.time_ns
            done = event if joins and follows(event, (pair[0], pair[1])) else None
            if done is not None:
                continue
        elif isinstance(event, Queued) and first and first.time_ns < event.time_ns:
            blocks = event.state.used_blocks and first.state.used_blocks
            state = replace(event.state, used_blocks=blocks)
            event = replace(event, state=state)  # noqa: PLW2901
        out.append(event)
    return out


def sizes(events: Events) -> list[int]:
    return [len(e.end_ns) for e in events if isinstance(e, IterationsEnded)]


@every_scheduler
@QUICK
@given(scenario=scenarios())
def test_blocks_pass_where_their_iterations_do(name: str, scenario: Scenario) -> None:
    """With arrivals in the middle of blocks, whoever they are."""
    events = recorded(name, scenario)
    blocks = merged(events)
    assert sum(sizes(blocks)) == len(sizes(events))
    hold(blocks)


def test_long_decodes_become_long_blocks() -> None:
    """One request of 50 tokens: one prefill, then 49 decodes in one event."""
    events = recorded("orca", Scenario(requests((0, 20, 50)), limits()))
    assert sizes(merged(events)) == [1, 49]


def test_the_fast_forward_reports_blocks() -> None:
    """The same request, priced many iterations at a time: the same two events."""
    alone = Scenario(requests((0, 20, 50)), limits(), pricer=ManyPricer())
    events = recorded("orca", alone)
    assert sizes(events) == [1, 49]
    by_hand = recorded("orca", replace(alone, pricer=LinearPricer()))
    assert events[:-1] == merged(by_hand)[:-1]
    hold(events)


def blocks_of_busy() -> tuple[Events, int]:
    """Blocks of a busy run, and the position of the longest one's end."""
    events = merged(busy())
    longest = max(sizes(events))
    assert longest >= 5
    return events, nth(events, IterationsEnded, sizes(events).index(longest))


@pytest.mark.parametrize(
    ("name", "cut"),
    [("clock-order", slice(1, None, -1)), ("output-exactness", slice(1, None))],
)
def test_a_broken_block_is_found(name: str, cut: slice) -> None:
    """Ends out of order; an iteration too few, so that somebody is short of a token."""
    events, at = blocks_of_busy()
    hold(events)
    end_ns = events[at].end_ns[cut]  # type: ignore[union-attr]
    with pytest.raises(InvariantError) as caught:
        hold(altered(events, at, end_ns=end_ns))
    assert caught.value.invariant == name


def test_a_block_that_somebody_left_in_the_middle_is_found() -> None:
    """Who finishes must end the block: 3 and 5 tokens, as one block of 4 decodes."""
    events = recorded("orca", Scenario(requests((0, 9, 3), (0, 9, 5)), limits()))
    ends = [nth(events, IterationsEnded, n) for n in range(5)]
    assert [events[at].finished for at in ends] == [(), (), (0,), (), (1,)]  # type: ignore[union-attr]
    last = events[ends[4]]
    assert isinstance(last, IterationsEnded)
    block = replace(
        last,
        end_ns=tuple(events[at].time_ns for at in ends[1:]),  # type: ignore[union-attr]
        finished=(0, 1),
    )
    with pytest.raises(InvariantError, match=r"output-exactness.*request 0"):
        hold([*events[: ends[1]], block, *events[ends[4] + 1 :]])


def test_a_block_that_keeps_somebody_out_is_found() -> None:
    """A request that fits arrives in the middle of 29 decodes and waits to their end.

    Alone, 20 prompt tokens in 4 layers: 180 ns, then decodes of 110 ns.
    """
    events = merged(recorded("orca", Scenario(requests((0, 20, 30)), limits())))
    start, end = (nth(events, kind, 1) for kind in (IterationStarted, IterationsEnded))
    late = requests((0, 20, 30), (500, 5, 1))
    state = replace(events[start].state, waiting=1)  # type: ignore[union-attr]
    coming = [Arrived(500, 1), Sent(500, 1, 0), Queued(500, 1, 0, state)]
    cut = replace(
        events[end],  # type: ignore[type-var]
        time_ns=events[end].end_ns[-2],  # type: ignore[union-attr]
        end_ns=events[end].end_ns[:-1],  # type: ignore[union-attr]
        finished=(),
        state=state,
    )
    start_of_run = replace(events[0], requests=late)  # type: ignore[type-var]
    with pytest.raises(InvariantError, match=r"work-conservation.*request 1"):
        hold([start_of_run, *events[1 : start + 1], *coming, cut])
