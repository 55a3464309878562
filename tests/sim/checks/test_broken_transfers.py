"""A stream of a disaggregated run with one thing wrong: the law that says so."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest

from sim.errors import InvariantError
from sim.events import (
    Event,
    IterationStarted,
    RunEnded,
    Stalled,
)
from sim.transfer_events import (
    Offered,
    TransferEnded,
    TransferStarted,
)
from tests.sim.checks.streams import (
    Breaks,
    Events,
    altered,
    end_of,
    hold,
    nth,
    without,
)
from tests.sim.pricing import Scenario, limits, requests
from tests.sim.tape import Tape
from tests.sim.test_disaggregation import disaggregated


@cache
def _recorded() -> tuple[Event, ...]:
    """Two prompts at once, a full decode replica, a stall at either end."""
    tape = Tape()
    work = requests((0, 40, 4), (0, 40, 2), (0, 40, 2), (5000, 10, 2))
    case = Scenario(work, limits(block_size=10, max_model_len=60), replicas=2)
    disaggregated("orca", case, tape=tape, blocks=(9, 6))
    *events, end = tape.events
    assert isinstance(end, RunEnded)  # with records of its own, that a test may change
    return (*events, replace(end, records=list(end.records)))


def stream() -> Events:
    return list(copy.deepcopy(_recorded()))


def changed(kind: type, n: int = 0, **changes: int) -> Breaks:
    """Add to fields of the n-th event of a kind."""

    def broken(events: Events) -> Events:
        at = nth(events, kind, n)
        new = {key: getattr(events[at], key) + by for key, by in changes.items()}
        return altered(events, at, **new)

    return broken


def stated(kind: type, n: int = 0, **changes: int) -> Breaks:
    """Add to the state that comes with the n-th event of a kind."""

    def broken(events: Events) -> Events:
        at = nth(events, kind, n)
        state = events[at].state  # type: ignore[union-attr]
        new = {key: getattr(state, key) + by for key, by in changes.items()}
        return altered(events, at, state=replace(state, **new))

    return broken


def dropped(kind: type, n: int = 0) -> Breaks:
    return lambda events: without(events, nth(events, kind, n))


def swapped_offers(events: Events) -> Events:
    first, second = nth(events, Offered, 0), nth(events, Offered, 1)
    events[first], events[second] = events[second], events[first]
    return events


def wrong_record(events: Events) -> Events:
    end_of(events).records[0].prefill_replica = -1
    return events


def stalled_with_work(events: Events) -> Events:
    """A stall in place of the first iteration of the decode replica."""
    at = nth(events, IterationStarted, replica=1)
    started = events[at]
    assert isinstance(started, IterationStarted)
    stall = Stalled(started.time_ns, 1, started.state)
    return [*events[:at], stall, *events[at + 1 :]]


BROKEN: dict[str, tuple[str, Breaks]] = {
    "half a cache is sent": (
        "transfer-conservation",
        changed(TransferStarted, tokens=-10),
    ),
    "it is there too early": (
        "transfer-conservation",
        changed(TransferStarted, end_ns=-1),
    ),
    "it is sent over a busy link": (
        "transfer-conservation",
        changed(TransferStarted, begin_ns=-1, end_ns=-1),
    ),
    "it arrives somewhere else": (
        "lifecycle",
        changed(TransferEnded, replica=-1, source=1),
    ),
    "it never arrives": (
        "lifecycle|clock|request|conservation",
        dropped(TransferEnded),
    ),
    "it was never sent": ("work-conservation", dropped(TransferStarted)),
    "it was never offered": ("lifecycle", dropped(Offered)),
    "the second is pulled first": ("lifecycle", swapped_offers),
    "its source keeps a block": (
        "kv-sufficiency",
        stated(TransferEnded, used_blocks=1),
    ),
    "its target takes none": (
        "kv-sufficiency",
        stated(TransferStarted, used_blocks=-4),
    ),
    "its source says it is still there": (
        "request-conservation",
        stated(TransferEnded, parked=1),
    ),
    "its target knows of nobody": (
        "request-conservation",
        stated(TransferStarted, incoming=-1),
    ),
    "a stall is not told": ("busy-time|work-conservation", dropped(Stalled)),
    "a stall with something to run": ("work-conservation", stalled_with_work),
    "a record forgets who prefilled": ("causality|little|token", wrong_record),
    "a cache arrives in the past": (
        "clock-order",
        changed(TransferEnded, time_ns=-200),
    ),
}


def test_the_whole_stream_keeps_every_law() -> None:
    hold(stream())
    kinds = {type(event) for event in stream()}
    assert {Offered, TransferStarted, TransferEnded, Stalled} <= kinds


@pytest.mark.parametrize("name", BROKEN)
def test_one_thing_wrong_is_found(name: str) -> None:
    law, breaks = BROKEN[name]
    with pytest.raises(InvariantError, match=law):
        hold(breaks(stream()))
