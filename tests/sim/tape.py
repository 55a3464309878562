"""The events of a run, kept; and those of a fast-forward against those of stepping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest

import sim.shell.replica as replica_module
from sim.checks import run_checker
from sim.events import (
    Event,
    IterationsCut,
    IterationsEnded,
    IterationsPassed,
    IterationStarted,
    RunEnded,
)
from sim.shell.cluster import ClusterRun
from sim.step import StepCost

At = tuple[int, int]
"""Replica and time (ns): each begins one iteration at a time, and each takes time."""


class Tape:
    """Checks every law of a run and remembers its events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._checker = run_checker()

    def on(self, event: Event) -> None:
        self.events.append(event)
        self._checker.on(event)

    def of(self, *kinds: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kinds)]


def fast_and_slow(
    serve: Callable[..., ClusterRun], fewest: int = 2
) -> tuple[ClusterRun, ClusterRun, Tape]:
    """A run with the fast-forward and one without, and the events of the latter.

    Their events are the same; what else they left behind is for the caller to compare.

    Args:
        serve: Serves something, with arguments ``fast`` and ``tape``.
        fewest: Iterations in a row that are priced as one.
    """
    fast_tape, tape = Tape(), Tape()
    slow = serve(fast=False, tape=tape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica_module, "_FEWEST", fewest)
        fast = serve(fast=True, tape=fast_tape)
    assert_same_events(fast_tape, tape)
    return fast, slow, tape


def assert_same_events(fast: Tape, slow: Tape) -> None:
    """All the same and in the same order, but for ends inside runs of decodes.

    Stepping tells each of those as an end and a start at the same time, of the same
    plan and with nobody finished; their costs add up to that of the run.
    """
    inside = set(_inside(fast.events))
    stepped = list(_joined(slow.events, inside))
    told = [e for e in fast.events if not isinstance(e, IterationsPassed)]
    assert len(told) == len(stepped)
    for one, other in zip(told, stepped, strict=True):
        if isinstance(one, IterationsEnded | IterationsCut):
            assert type(other) is type(one)
            _assert_same_cost(one.cost, other.cost)  # type: ignore[union-attr]
        assert _bare(one) == _bare(other)


def _inside(events: Iterable[Event]) -> Iterator[At]:
    """Ends after which the same run went on."""
    for event in events:
        if isinstance(event, IterationsPassed):
            yield from ((event.replica, end_ns) for end_ns in event.end_ns)
        elif isinstance(event, IterationsEnded):
            yield from ((event.replica, end_ns) for end_ns in event.end_ns[:-1])


def _joined(events: Iterable[Event], inside: set[At]) -> Iterator[Event]:
    """Events of stepping without those ends, their costs in the end of the run."""
    before: dict[int, list[StepCost]] = {}
    plans = {}
    for event in events:
        if isinstance(event, IterationStarted):
            at = (event.replica, event.time_ns)
            if at in inside:
                assert event.plan == plans[event.replica]
                continue
            plans[event.replica] = event.plan
        if not isinstance(event, IterationsEnded | IterationsCut):
            yield event
            continue
        costs = before.setdefault(event.replica, [])
        costs.append(event.cost)
        if isinstance(event, IterationsEnded):
            assert list(event.end_ns) == [event.time_ns]
            if (event.replica, event.time_ns) in inside:
                assert not event.finished
                continue
        yield replace(event, cost=_sum(before.pop(event.replica)))
    assert not before


def _sum(costs: Iterable[StepCost]) -> StepCost:
    return StepCost(*map(sum, zip(*costs, strict=True)))


def _assert_same_cost(one: StepCost, other: StepCost) -> None:
    """Integers exactly, joules as far as the order of a sum allows."""
    for a, b in zip(one, other, strict=True):
        assert a == (b if isinstance(b, int) else pytest.approx(b, rel=1e-12, abs=0))


def _bare(event: Event) -> Event:
    """Without what is compared otherwise."""
    if isinstance(event, RunEnded):
        return replace(event, records=(), logs=())
    if isinstance(event, IterationsEnded):
        return replace(event, end_ns=event.end_ns[-1:], cost=None)  # type: ignore[arg-type]
    if isinstance(event, IterationsCut):
        return replace(event, cost=None)  # type: ignore[arg-type]
    return event
