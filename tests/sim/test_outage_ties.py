"""Ties of outages, what is lost at them and what it has cost, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.engine import Engine
from sim.events import IterationsEnded, ReplicaDraining, ReplicaUp
from sim.plan import StepPlan
from sim.prefix import Prefix
from sim.routers import ROUTERS
from sim.shell.cluster import Cluster
from sim.step import StepCost
from tests.sim.pricing import Scenario, limits, requests, scheduler_of
from tests.sim.tape import Tape
from tests.sim.test_fast_forward import ManyPricer
from tests.sim.test_outages import outages, suffered


@pytest.mark.parametrize("fast", [True, False])
def test_what_ends_as_the_replica_fails_has_ended(fast: bool) -> None:
    """The tenth of the decodes of 110 ns from 500 on ends then, and counts as any."""
    case = Scenario(requests((0, 100, 101)), limits(), replicas=2)
    run = suffered("orca", case, outages(2, (0, "failure", 1600, 10**6)), fast=fast)
    assert list(run.logs[0].end_ns)[-2:] == [1490, 1600]
    assert list(run.logs[0].decode_tokens) == [0] + [1] * 10
    assert [len(r.runs) for r in run.fleet.lost] == [1]


class Reading(ManyPricer):
    """A decode also reads 2 bytes per token of context."""

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        cost = super().price(plan, decoding, context_tokens)
        return cost._replace(kv_bytes=2 * context_tokens)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("at_ns", "kv_bytes"), [(555, 101), (665, 202 + 102), (610, 202)]
)
def test_a_lost_iteration_costs_its_own_part(
    at_ns: int, kv_bytes: int, fast: bool
) -> None:
    """Decodes from 500 on read 202, 204, ... bytes in 110 ns each, half of it in 55."""
    case = Scenario(requests((0, 100, 101)), limits(), replicas=2)
    engines = [Engine(scheduler_of("orca", case), case.at, 99) for _ in range(2)]
    router = ROUTERS["round-robin"]()
    cluster = Cluster(engines, Reading(), router, fast_forward=fast)
    cluster.suffer(outages(2, (0, "failure", at_ns, 10**6)))
    run = cluster.run(case.requests, observer=Tape())
    assert run.logs[0].totals["kv_bytes"] == kv_bytes


@pytest.mark.parametrize("drained", [True, False])
def test_a_drained_replica_comes_back_with_an_empty_cache(drained: bool) -> None:
    """Two prompts alike, of 20 tokens; the second finds 4 blocks of 4 if they stay."""
    alike = Prefix((1,), (20,))
    work = requests((0, 20, 1), (5000, 20, 1))
    work = tuple(replace(request, prefix=alike) for request in work)
    case = Scenario(work, limits(block_size=4), prefix_caching=True)
    rows = [(0, "drain", 1000, 2000)] if drained else [(0, "drain", 9000, 9001)]
    run = suffered("orca", case, outages(1, *rows))
    assert run.records[1].cached_tokens == (0 if drained else 16)


def test_the_lower_replica_fails_and_comes_back_first() -> None:
    """Ties, whatever was known first: 1 is to fail at 700 from the start, 0 from 2 on.

    0 fails first, and its request goes to 1, which fails too: twice for request 0, once
    for request 1, which came first there. Both fail again later and are back at 9000: 0
    first, to which all go.
    """
    case = Scenario(requests((0, 100, 3), (0, 100, 3)), limits(), replicas=2)
    zero = [(0, "drain", 1, 2), (0, "failure", 700, 8000), (0, "failure", 8002, 9000)]
    one = [(1, "failure", 700, 8000), (1, "failure", 8001, 9000)]
    run = suffered("orca", replace(case, router="round-robin"), outages(2, *zero, *one))
    lost = [(r.request.id, r.replica) for r in run.fleet.lost]
    assert lost[:3] == [(0, 0), (1, 1), (0, 1)]
    assert [r.replica for r in run.records] == [0, 0]


@pytest.mark.parametrize("fast", [True, False])
def test_who_comes_back_at_an_end_elsewhere_comes_after_it(fast: bool) -> None:
    """Replica 1 decodes, 110 ns each; the drain of replica 0 ends as one does."""
    case = Scenario(requests((10, 100, 9)), limits(), replicas=2)
    tape = Tape()
    suffered("orca", case, outages(2, (0, "drain", 1, 730)), fast=fast, tape=tape)
    told = [e for e in tape.of(IterationsEnded, ReplicaUp) if e.time_ns <= 730]  # type: ignore[union-attr]
    assert [type(e) for e in told[-2:]] == [IterationsEnded, ReplicaUp]
    ends = told[-2].end_ns  # type: ignore[union-attr]
    assert ends[-1] == 730


def test_a_replica_that_fails_before_it_has_planned_serves_again() -> None:
    """Request 0 comes at 700, and so does the failure: nothing was planned yet."""
    case = Scenario(requests((700, 10, 2), (2000, 10, 2)), limits())
    run = suffered("orca", case, outages(1, (0, "failure", 700, 1000)))
    assert [r.first_scheduled_ns for r in run.records] == [1000, 2000]
    assert [r.retries for r in run.records] == [1, 0]


@pytest.mark.parametrize("fast", [True, False])
def test_an_end_inside_a_run_comes_before_one_elsewhere_and_a_drain(fast: bool) -> None:
    """All at 720: a decode of replica 0, the prompt of replica 1, the drain of 2.

    Replica 0 decodes from 500 on, 110 ns each; that prompt takes 100 + 4 x 30 from 500.
    """
    work = requests((0, 100, 9), (500, 30, 9))
    case = Scenario(work, limits(), replicas=3, router="round-robin")
    tape = Tape()
    suffered("orca", case, outages(3, (2, "drain", 720, 10**4)), fast=fast, tape=tape)
    told = tape.of(IterationsEnded, ReplicaDraining)
    at = [(type(e), e.replica) for e in told if e.time_ns == 720]  # type: ignore[union-attr]
    assert at == [(IterationsEnded, 0), (IterationsEnded, 1), (ReplicaDraining, 2)]
