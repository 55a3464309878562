"""No policy knows how long an output will be, whichever way it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given

from sim.engine import Engine
from sim.errors import InvariantError
from sim.plan import StepPlan
from sim.routers import ROUTERS
from sim.schedulers import SCHEDULERS
from sim.shell.cluster import Cluster
from sim.view import SchedulerView
from tests.sim.pricing import (
    QUICK,
    LinearPricer,
    Recorder,
    Scenario,
    limits,
    requests,
    scenarios,
    scheduler,
    serve,
)


class Oracle(Recorder):
    """Orca that looks at what it must not know first."""

    def __init__(self, look: Callable[[SchedulerView], object]) -> None:
        super().__init__(scheduler("orca", limits()))
        self._look = look

    def plan(self, view: SchedulerView) -> StepPlan:
        self._look(view)
        return super().plan(view)


LOOKS = {
    "output_tokens of a QueuedRequest": lambda v: v.waiting[0].output_tokens,  # type: ignore[attr-defined]
    "request of a QueuedRequest": lambda v: v.waiting[0].request.output_tokens,  # type: ignore[attr-defined]
    "output_tokens of a PrefillState": lambda v: [
        p.output_tokens for p in v.prefilling
    ],  # type: ignore[attr-defined]
    "records of a SchedulerView": lambda v: v.records,  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("what", LOOKS)
def test_reading_the_true_output_length_raises(what: str) -> None:
    """Shortest job first by oracle: the read is the error, at its time."""
    at = limits(max_num_batched_tokens=10)
    engine = Engine(Oracle(LOOKS[what]), at, 100)
    if "Prefill" in what:
        inner = Oracle(LOOKS[what])
        inner._inner = scheduler("chunked-prefill", at)
        engine = Engine(inner, at, 100)
    cluster = Cluster([engine], LinearPricer(), ROUTERS["round-robin"]())
    with pytest.raises(InvariantError) as caught:
        cluster.run(requests((70, 10, 3), (70, 25, 3)))
    error = caught.value
    assert error.invariant == "knowledge-boundary"
    assert f"reads {what}, which may say" in error.problem
    if "Queued" in what:
        words = "id, tokens, resumed, client, swapped"
        assert error.problem.endswith(f"which may say {words} only")
    assert error.time_ns is not None
    assert error.time_ns >= 70
    assert error.request_id in ({None} if "View" in what else {0, 1})


def test_other_errors_of_a_policy_stay_what_they_are() -> None:
    """A typing error is not a breach."""
    engine = Engine(Oracle(lambda view: limits().tokens), limits(), 100)  # type: ignore[attr-defined]
    cluster = Cluster([engine], LinearPricer(), ROUTERS["round-robin"]())
    with pytest.raises(AttributeError, match="tokens"):
        cluster.run(requests((0, 10, 3)))


def test_guessing_an_attribute_tells_a_policy_nothing() -> None:
    """What is not there cannot be found by asking politely."""
    found: list[object] = []

    def look(view: SchedulerView) -> None:
        shown = (view, *view.waiting, *view.prefilling)
        found.extend(getattr(each, "output_tokens", None) for each in shown)

    engine = Engine(Oracle(look), limits(), 100)
    cluster = Cluster([engine], LinearPricer(), ROUTERS["round-robin"]())
    cluster.run(requests((0, 10, 3), (0, 25, 3)))
    assert len(found) > 3
    assert set(found) == {None}


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@QUICK
@given(scenario=scenarios())
def test_plans_do_not_depend_on_what_is_still_to_come(
    name: str, scenario: Scenario
) -> None:
    """Every output 5 tokens longer: the same plans until somebody finishes.

    Whichever way a policy reads output lengths, this shows it.
    """
    longer = tuple(
        replace(r, output_tokens=r.output_tokens + 5) for r in scenario.requests
    )
    short, long = serve(name, scenario), serve(name, replace(scenario, requests=longer))
    first_ns = min((r.finish_ns for r in short.run.records if r.finish_ns), default=0)
    starts = short.run.logs[0].start_ns
    same = sum(start < first_ns for start in starts)
    assert short.steps[:same] == long.steps[:same]
