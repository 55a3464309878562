"""Recorded event streams, and ways to break them one event at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

from sim.checks import CHECKS, Checker
from sim.checks.check import Check
from sim.engine import Engine
from sim.events import Event, RunEnded, RunStarted
from sim.plan import StepPlan
from sim.prefix import Prefix, SegmentChain
from sim.routers import ROUTERS
from sim.shell.cluster import Cluster
from sim.step import StepCost
from tests.sim.pricing import LinearPricer, Scenario, limits, requests, scheduler

Events = list[Event]
Breaks = Callable[[Events], Events]


@dataclass(frozen=True)
class Pricer(LinearPricer):
    """Linear times; energy and bytes that are not zero."""

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        cost = super().price(plan, decoding, context_tokens)
        joules = cost.duration_ns * 0.1
        return cost._replace(
            wait_ns=cost.duration_ns // 3,
            flops=7 * cost.duration_ns,
            energy_run_j=joules,
            energy_hbm_j=joules / 7,
        )


class Tape:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.events: Events = []

    def on(self, event: Event) -> None:
        if isinstance(event, RunEnded):  # records of its own, that a test may change
            event = replace(event, records=list(event.records))
        self.events.append(event)


def recorded(name: str, scenario: Scenario, frontend_ns: int = 0) -> Events:
    """The events of a run."""
    engines = [
        Engine(
            scheduler(
                name, scenario.at, scenario.groups, scenario.rule, scenario.scale
            ),
            scenario.at,
            scenario.num_blocks,
            prefix_caching=scenario.prefix_caching,
        )
        for _ in range(scenario.replicas)
    ]
    router = ROUTERS[scenario.router]()
    slots = scenario.max_concurrency
    tape = Tape()
    Cluster(engines, scenario.pricer, router, slots, frontend_ns).run(
        scenario.requests, observer=tape
    )
    return tape.events


def hold(events: Iterable[Event], checks: Iterable[type[Check]] = CHECKS) -> None:
    """Hold laws against a stream, as an observer of the run would."""
    checker = Checker(tuple(checks))
    for event in events:
        checker.on(event)


ROWS = (
    *((0, 20, 9), (0, 33, 6), (5, 11, 14), (40, 40, 12), (90, 7, 1), (91, 99, 3)),
    *((2000, 18, 20), (2100, 17, 20), (2150, 16, 20), (50_000, 5, 2)),
)
AT = limits(max_model_len=60, max_num_batched_tokens=40, max_num_seqs=4, block_size=4)


@cache
def _busy(
    name: str, frontend_ns: int, max_concurrency: int | None
) -> tuple[Event, ...]:
    """Bursts, a rejection, preemptions, layer groups, an idle gap, one replica."""
    scenario = Scenario(
        requests(*ROWS),
        AT,
        num_blocks=19,
        scale=60,
        pricer=Pricer(context_ns=1),
        max_concurrency=max_concurrency,
    )
    return tuple(recorded(name, scenario, frontend_ns))


def busy(
    name: str = "layered-prefill",
    *,
    frontend_ns: int = 0,
    max_concurrency: int | None = None,
) -> Events:
    """A fresh copy of a run in which everything happens."""
    return list(copy.deepcopy(_busy(name, frontend_ns, max_concurrency)))


@cache
def _sharing() -> tuple[Event, ...]:
    """A conversation of two turns after which others ask the same, and one alone."""
    chain = SegmentChain()
    talk = chain.prefix((0, 1, 2, 3), (10, 6, 8, 4))
    rows = requests(
        (0, 10, 6), (2000, 24, 4), (4000, 24, 4), (4000, 24, 4), (9000, 16, 2)
    )
    parts = (2, 4, 4, 4, 0)
    shared = tuple(
        replace(row, prefix=Prefix(talk.segments[:n], talk.ends[:n]))
        for row, n in zip(rows, parts, strict=True)
    )
    scenario = Scenario(
        shared, AT, num_blocks=19, scale=60, pricer=Pricer(), prefix_caching=True
    )
    return tuple(recorded("layered-prefill", scenario))


def sharing() -> Events:
    """A fresh copy of a run with a prefix cache."""
    return list(copy.deepcopy(_sharing()))


def nth(events: Events, kind: type, n: int = 0, **having: object) -> int:
    """Position of the n-th event of a kind with these attributes."""
    found = [
        i
        for i, event in enumerate(events)
        if isinstance(event, kind)
        and all(getattr(event, name) == value for name, value in having.items())
    ]
    return found[n]


def altered(events: Events, position: int, **changes: object) -> Events:
    """The stream with fields of one event changed."""
    event = replace(events[position], **changes)  # type: ignore[arg-type]
    return [*events[:position], event, *events[position + 1 :]]


def without(events: Events, position: int) -> Events:
    """The stream without one event."""
    return [*events[:position], *events[position + 1 :]]


def end_of(events: Events) -> RunEnded:
    """The last event; its records and logs may be changed in place."""
    (last,) = [event for event in events if isinstance(event, RunEnded)]
    return last


def start_of(events: Events) -> RunStarted:
    """The first event."""
    (first,) = [event for event in events if isinstance(event, RunStarted)]
    return first
