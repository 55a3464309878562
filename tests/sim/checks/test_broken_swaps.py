"""A stream of a run that swaps, with one thing wrong: the law that says so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from sim.errors import InvariantError
from sim.events import Event, IterationsEnded, IterationStarted, Queued, RunStarted
from sim.plan import StepPlan, SwapPlan
from sim.request import TokenRun
from tests.sim.checks.streams import Breaks, Events, Tape, altered, end_of, hold, nth
from tests.sim.checks.test_broken_transfers import stated
from tests.sim.pricing import requests
from tests.sim.swapping import PAIR, swapped


@cache
def _recorded() -> tuple[Event, ...]:
    """Two go to the host, one loses its blocks, all come back; a prompt waits."""
    tape = Tape()
    rows = requests((0, 2, 4), (0, 2, 4), (0, 2, 4), (120, 2, 2))
    swapped("orca", replace(PAIR, requests=rows), 1, fast=False, observer=tape)
    return tuple(tape.events)


def stream() -> Events:
    return list(copy.deepcopy(_recorded()))


def copies(events: Events, *, inward: bool) -> int:
    """Position of the first plan that brings back, or sends, blocks."""
    return next(
        at
        for at, event in enumerate(events)
        if isinstance(event, IterationStarted)
        and isinstance(event.plan, SwapPlan)
        and bool(event.plan.swapped_in) == inward
    )


def planned(change: Callable[[SwapPlan], StepPlan], *, inward: bool) -> Breaks:
    """Change the first plan that copies."""

    def broken(events: Events) -> Events:
        at = copies(events, inward=inward)
        plan = events[at].plan  # type: ignore[union-attr]
        return altered(events, at, plan=change(plan))

    return broken


def never_resumed(events: Events) -> Events:
    """A record that calls a decode a prefill."""
    records = end_of(events).records
    record = next(r for r in records if any(run.resumed for run in r.runs))
    record.runs[:] = [TokenRun(r.first_ns, r.start, r.stop) for r in record.runs]
    return events


def smaller_pool(events: Events) -> Events:
    at = nth(events, RunStarted)
    setups = events[at].replicas  # type: ignore[union-attr]
    fewer = tuple(replace(setup, host_blocks=0) for setup in setups)
    return altered(events, at, replicas=fewer)


def larger_pool(events: Events) -> Events:
    at = nth(events, RunStarted)
    setups = events[at].replicas  # type: ignore[union-attr]
    more = tuple(replace(setup, host_blocks=9) for setup in setups)
    return altered(events, at, replicas=more)


def late(_events: Events) -> Events:
    """Another stream: one on the host for which there were blocks all the time."""
    tape = Tape()
    swapped("orca", PAIR, 10, fast=False, observer=tape)
    setups = tape.events[0].replicas  # type: ignore[union-attr]
    roomy = tuple(replace(setup, num_blocks=9) for setup in setups)
    return altered(tape.events, 0, replicas=roomy)


SWAPS = "swap-conservation"
BROKEN: dict[str, tuple[str, Breaks]] = {
    "a block more goes": (
        SWAPS,
        planned(lambda p: replace(p, blocks_out=p.blocks_out + 1), inward=False),
    ),
    "a block less comes back": (
        SWAPS,
        planned(lambda p: replace(p, blocks_in=p.blocks_in - 1), inward=True),
    ),
    "a victim is not told of": (
        f"{SWAPS}|request-conservation",
        planned(lambda p: replace(p, swapped_out=(), blocks_out=0), inward=False),
    ),
    "nobody comes back": (
        "request-conservation|progress|lifecycle",
        planned(lambda p: StepPlan(p.spans, p.preempted), inward=True),
    ),
    "another comes back": (
        "lifecycle",
        planned(lambda p: replace(p, swapped_in=(0,)), inward=True),
    ),
    "the host holds more than it says": (
        SWAPS,
        stated(IterationStarted, 1, host_blocks=-1),
    ),
    "the host keeps a block": (SWAPS, stated(IterationsEnded, -1, host_blocks=1)),
    "the host takes an arrival": (SWAPS, stated(Queued, 0, host_blocks=1)),
    "more than the pool": (SWAPS, smaller_pool),
    "a victim loses blocks the host had room for": (SWAPS, larger_pool),
    "left on the host": (SWAPS, late),
    "the record says recomputed": ("causality", never_resumed),
}


def test_the_whole_stream_keeps_every_law() -> None:
    hold(stream())
    plans = [e.plan for e in stream() if isinstance(e, IterationStarted)]
    assert [p.swapped_in for p in plans if isinstance(p, SwapPlan)] == [
        *((), (2,), (), (3,))
    ]
    assert [p.preempted for p in plans if p.preempted] == [(2, 1), (3,)]


@pytest.mark.parametrize("name", BROKEN)
def test_one_thing_wrong_is_found(name: str) -> None:
    law, breaks = BROKEN[name]
    with pytest.raises(InvariantError, match=law):
        hold(breaks(stream()))
