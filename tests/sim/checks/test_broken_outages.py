"""A stream with failures and a drain, one thing wrong: the law that says so."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest

from sim.errors import InvariantError
from sim.events import (
    Event,
    IterationsCut,
    IterationsPassed,
    ReplicaDown,
    ReplicaDraining,
    ReplicaUp,
    Retried,
    RunEnded,
    Sent,
    Stranded,
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
from tests.sim.checks.test_broken_transfers import changed, dropped, stated
from tests.sim.pricing import Scenario, limits, requests
from tests.sim.tape import Tape
from tests.sim.test_outages import outages, suffered


@cache
def _recorded() -> tuple[Event, ...]:
    """A drain, a failure in a run of decodes, nobody for a request that arrives."""
    tape = Tape()
    work = requests((0, 40, 4), (0, 40, 30), (20, 8, 2), (5000, 10, 2))
    case = Scenario(work, limits(block_size=10), replicas=2, router="round-robin")
    away = outages(2, (0, "drain", 30, 9000), (1, "failure", 2000, 6000))
    suffered("orca", case, away, tape=tape)
    *events, end = tape.events
    assert isinstance(end, RunEnded)  # with records of its own, that a test may change
    return (*events, replace(end, records=list(end.records)))


def stream() -> Events:
    return list(copy.deepcopy(_recorded()))


def to(kind: type, n: int = 0, **values: object) -> Breaks:
    """Set fields of the n-th event of a kind."""
    return lambda events: altered(events, nth(events, kind, n), **values)


def drained_at_once(events: Events) -> Events:
    """Before anybody is sent to it."""
    rest = without(events, nth(events, ReplicaDraining))
    return [rest[0], ReplicaDraining(0, 0), *rest[1:]]


def off_too_early(events: Events) -> Events:
    """When the drain begins."""
    at, off = nth(events, ReplicaDraining), nth(events, ReplicaDown)
    early = replace(events[off], time_ns=30)  # type: ignore[call-arg]
    return [*events[: at + 1], early, *without(events, off)[at + 1 :]]


def cut_costs(events: Events) -> Events:
    at = nth(events, IterationsCut)
    cost = events[at].cost  # type: ignore[union-attr]
    return altered(events, at, cost=cost._replace(duration_ns=cost.duration_ns - 1))


def cut_ends(events: Events) -> Events:
    """One whole iteration fewer."""
    at = nth(events, IterationsPassed)
    return altered(events, at, end_ns=events[at].end_ns[:-1])  # type: ignore[union-attr]


def twice(kind: type) -> Breaks:
    def broken(events: Events) -> Events:
        at = nth(events, kind)
        return [*events[: at + 1], *events[at:]]

    return broken


def wrong_retries(events: Events) -> Events:
    end_of(events).records[1].retries = 0
    return events


BROKEN: dict[str, tuple[str, Breaks]] = {
    "sent to a replica that drains": ("availability", drained_at_once),
    "sent to a replica that is off": ("availability", to(Sent, -2, replica=0)),
    "fails though it only drains": ("availability", to(ReplicaDown, failed=True)),
    "off with requests": ("availability", off_too_early),
    "a failure that loses nobody": (
        "availability",
        to(ReplicaDown, 1, failed=False),
    ),
    "one is never sent again": ("lifecycle", dropped(Retried)),
    "one is sent again twice": ("lifecycle", twice(Retried)),
    "another is sent again": ("lifecycle", to(Retried, request_id=0)),
    "never stranded": ("causality", dropped(Stranded)),
    "sent only when it arrives again": ("lifecycle|causality", to(Sent, request_id=3)),
    "never comes back": ("availability", dropped(ReplicaUp)),
    "drains twice": ("availability", twice(ReplicaDraining)),
    "comes back twice": ("availability", twice(ReplicaUp)),
    "goes off twice": ("availability", twice(ReplicaDown)),
    "fails too late": ("clock-order", changed(ReplicaDown, 1, time_ns=10**6)),
    "never off": ("availability", dropped(ReplicaDown)),
    "blocks stay behind": ("kv-conservation", stated(ReplicaDown, 1, used_blocks=1)),
    "somebody stays behind": (
        "request-conservation",
        stated(ReplicaDown, 1, decoding=1),
    ),
    "the cut is not told": (
        "clock|conservation|lifecycle|availability",
        dropped(IterationsCut),
    ),
    "it took less time": ("busy-time", cut_costs),
    "an iteration is left out": (
        "token-conservation|kv-sufficiency|causality",
        cut_ends,
    ),
    "the record knows of no retry": ("causality", wrong_retries),
}


def test_the_whole_stream_keeps_every_law() -> None:
    hold(stream())
    kinds = {type(event) for event in stream()}
    told = {IterationsCut, ReplicaDown, ReplicaDraining, ReplicaUp, Retried, Stranded}
    assert told <= kinds


@pytest.mark.parametrize("name", BROKEN)
def test_one_thing_wrong_is_found(name: str) -> None:
    law, breaks = BROKEN[name]
    with pytest.raises(InvariantError, match=law):
        hold(breaks(stream()))
