"""Ways to break a stream: each takes a good one and gives it back with one fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sim.events import Arrived, IterationsEnded, IterationStarted, Queued, RunStarted
from sim.plan import LayerSpan, StepPlan
from sim.prefix import Prefix
from sim.request import Request, TokenRun
from sim.step import NUM_COUNTS, StepCost
from tests.sim.checks.streams import (
    Breaks,
    Events,
    altered,
    end_of,
    nth,
    start_of,
    without,
)


def change(kind: type, n: int = 0, **changes: Any) -> Breaks:
    """Change fields of the n-th event of a kind; a function maps the old value."""

    def apply(events: Events) -> Events:
        at = nth(events, kind, n)
        old = events[at]
        values = {
            name: value(getattr(old, name)) if callable(value) else value
            for name, value in changes.items()
        }
        return altered(events, at, **values)

    return apply


def drop(kind: type, n: int = 0) -> Breaks:
    return lambda events: without(events, nth(events, kind, n))


def twice(kind: type, n: int = 0) -> Breaks:
    def apply(events: Events) -> Events:
        at = nth(events, kind, n)
        return [*events[: at + 1], *events[at:]]

    return apply


def swap(kind: type, n: int = 0) -> Breaks:
    """Exchange an event with the one before it."""

    def apply(events: Events) -> Events:
        at = nth(events, kind, n)
        return [*events[: at - 1], events[at], events[at - 1], *events[at + 1 :]]

    return apply


def at_the_end(spoil: Callable[[Any], None]) -> Breaks:
    """Change what the last event refers to, in place."""

    def apply(events: Events) -> Events:
        spoil(end_of(events))
        return events

    return apply


def unlike(request_id: int) -> Breaks:
    """A request had other tokens than those it was served with."""

    def with_other(requests: tuple[Request, ...]) -> tuple[Request, ...]:
        old = requests[request_id].prefix
        other = Prefix(tuple(s + 100 for s in old.segments), old.ends)
        return tuple(
            replace(r, prefix=other) if r.id == request_id else r for r in requests
        )

    return change(RunStarted, requests=with_other)


def skips(n: int, by: int) -> Breaks:
    """The only chunk of the n-th plan starts elsewhere, in all of its groups."""

    def apply(events: Events) -> Events:
        first = events[nth(events, IterationStarted, n)]
        assert isinstance(first, IterationStarted)
        (whose,) = first.plan.spans[0].prefill
        return chunks(n, start=lambda _: whose.start + by)(events)

    return apply


def plan_with(n: int, **changes: Any) -> Breaks:
    """Change every span of the n-th plan."""
    return change(
        IterationStarted,
        n,
        plan=lambda plan: StepPlan(
            tuple(replace(span, **changes) for span in plan.spans), plan.preempted
        ),
    )


def chunks(n: int, **changes: Callable[[int], int]) -> Breaks:
    """Change every chunk of the n-th plan."""

    def map_plan(plan: StepPlan) -> StepPlan:
        spans = tuple(
            replace(
                span,
                prefill=tuple(
                    replace(c, **{k: f(getattr(c, k)) for k, f in changes.items()})
                    for c in span.prefill
                ),
            )
            for span in plan.spans
        )
        return StepPlan(spans, plan.preempted)

    return change(IterationStarted, n, plan=map_plan)


def limits_with(**changes: int) -> Breaks:
    """Other limits than the run obeyed."""
    return setup_with(
        lambda setup: replace(setup, limits=replace(setup.limits, **changes))
    )


def setup_with(map_setup: Callable[[Any], Any]) -> Breaks:
    return change(RunStarted, replicas=lambda setups: tuple(map(map_setup, setups)))


def state(kind: type, n: int, **changes: int) -> Breaks:
    """Let an engine count differently, by this much."""
    return change(
        kind,
        n,
        state=lambda old: replace(
            old, **{name: getattr(old, name) + by for name, by in changes.items()}
        ),
    )


def cost(n: int, **changes: Any) -> Breaks:
    return change(IterationsEnded, n, cost=lambda old: old._replace(**changes))


def first_finish(events: Events) -> int:
    """Number of the first iteration that ends a request."""
    ends = [event for event in events if isinstance(event, IterationsEnded)]
    return next(i for i, event in enumerate(ends) if event.finished)


def finishers(ids: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Breaks:
    """Change who finishes in that iteration."""
    return lambda events: change(IterationsEnded, first_finish(events), finished=ids)(
        events
    )


def longer_output(events: Events) -> Events:
    """Every request wanted one token more than it got."""
    requests = [
        replace(r, output_tokens=r.output_tokens + 1) for r in start_of(events).requests
    ]
    return change(RunStarted, requests=tuple(requests))(events)


def one_more_request(events: Events) -> Events:
    """Somebody who never arrives."""
    last = Request(id=99, arrival_ns=10**9, prompt_tokens=1, output_tokens=1)
    return change(RunStarted, requests=lambda old: (*old, last))(events)


def spoil_record(**changes: Callable[[Any], Any]) -> Breaks:
    """Change the record of the first request."""

    def spoil(end: Any) -> None:
        record = end.records[0]
        for name, value in changes.items():
            setattr(record, name, value(getattr(record, name)))

    return at_the_end(spoil)


def spoil_log(column: str, row: int, by: float) -> Breaks:
    def spoil(end: Any) -> None:
        getattr(end.logs[0], column)[row] += by

    return at_the_end(spoil)


def spoil_total(name: str, factor: float) -> Breaks:
    def spoil(end: Any) -> None:
        log = end.logs[0]
        where = StepCost._fields.index(name)
        assert log.totals  # folds what is kept into the sums
        if where < NUM_COUNTS:
            log._count_sums[where] *= factor
        else:
            log._joule_sums[where - NUM_COUNTS] *= factor

    return at_the_end(spoil)


def delayed_start(events: Events) -> Events:
    """The last iteration begins a nanosecond late; its end is long after."""
    return change(IterationStarted, -1, time_ns=lambda t: t + 1)(events)


def arrival_after_plan(events: Events) -> Events:
    """A request arrives at the time of a plan that has just been made without it."""
    at = nth(events, Arrived, 3)
    plan_ns = max(e.time_ns for e in events[:at] if isinstance(e, IterationStarted))
    return altered(events, at, time_ns=plan_ns)


def exchanged(events: Events) -> Events:
    """The first two requests arrive in the wrong order: arrived, sent, queued."""
    return [events[0], *events[4:7], *events[1:4], *events[7:]]


def shifted_run(runs: list[TokenRun]) -> list[TokenRun]:
    first = runs[0]
    return [TokenRun(first.first_ns, first.start + 1, first.stop + 1), *runs[1:]]


def pause(events: Events) -> Events:
    """The replica sleeps 5 ns before the last request, and all agree on it."""
    log = end_of(events).logs[0]
    at = nth(events, Queued, -1) + 1
    for event in events[at:]:
        if isinstance(event, IterationStarted):
            row = log.start_ns.index(event.time_ns)
            log.start_ns[row] += 5
            log.end_ns[row] += 5
    later = [replace(event, time_ns=event.time_ns + 5) for event in events[at:]]
    return [*events[:at], *later]


def prompt_again(events: Events) -> Events:
    """The last iteration runs the first plan once more."""
    first = events[nth(events, IterationStarted)]
    assert isinstance(first, IterationStarted)
    return change(IterationStarted, -1, plan=first.plan)(events)


def twice_in_half(span: LayerSpan) -> tuple[Any, ...]:
    """The first chunk cut in two, in the same span."""
    first, *rest = span.prefill
    return (
        replace(first, tokens=4),
        replace(first, start=4, tokens=first.tokens - 4),
        *rest,
    )


def lost_record(events: Events) -> Events:
    return [*events[:-1], replace(end_of(events), records=end_of(events).records[:-1])]
