"""Laws between two runs, exact, for every registered scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.request import Request
from sim.schedulers import SCHEDULERS
from tests.cases import cases
from tests.sim.pricing import (
    LinearPricer,
    Scenario,
    limits,
    outcome,
    requests,
    scenarios,
    serve,
)

every_scheduler = pytest.mark.parametrize("name", sorted(SCHEDULERS))
Outcome = Sequence[tuple[int, list[int], int, str | None]]


def moved(result: Outcome, by_ns: int) -> Outcome:
    """The same, ``by_ns`` later."""
    return [(r, [t + by_ns for t in times], n, why) for r, times, n, why in result]


def until(result: Outcome, time_ns: int) -> list[list[int]]:
    """Token times of each request up to ``time_ns``."""
    return [[t for t in times if t <= time_ns] for _, times, _, _ in result]


def emitted(result: Outcome) -> list[list[int]]:
    return [times for _, times, _, _ in result]


@every_scheduler
@cases(5)
@given(
    scenario=scenarios(max_replicas=3) | scenarios(max_replicas=3, closed_loop=True),
    factor=st.integers(2, 1000),
)
def test_k_times_the_rate_on_k_times_faster_gpus_takes_a_kth_of_the_time(
    name: str, scenario: Scenario, factor: int
) -> None:
    """Read from the slow run to the fast one."""
    prices = {key: value * factor for key, value in vars(scenario.pricer).items()}
    slow = replace(
        scenario,
        requests=tuple(
            replace(r, arrival_ns=r.arrival_ns * factor) for r in scenario.requests
        ),
        pricer=LinearPricer(**prices),
        target_ns=scenario.target_ns and scenario.target_ns * factor,
    )
    fast = outcome(serve(name, scenario))
    stretched = [(r, [t * factor for t in ts], n, why) for r, ts, n, why in fast]
    assert outcome(serve(name, slow)) == stretched


@every_scheduler
@cases(5)
@given(scenario=scenarios(max_replicas=3), later_ns=st.integers(0, 10**15))
def test_a_later_start_is_later_by_as_much(
    name: str, scenario: Scenario, later_ns: int
) -> None:
    shifted = replace(
        scenario,
        requests=tuple(
            replace(r, arrival_ns=r.arrival_ns + later_ns) for r in scenario.requests
        ),
    )
    assert outcome(serve(name, shifted)) == moved(
        outcome(serve(name, scenario)), later_ns
    )


@every_scheduler
@cases(5)
@given(scenario=scenarios(max_replicas=2), data=st.data())
def test_ids_are_names_only(name: str, scenario: Scenario, data: st.DataObject) -> None:
    """Any other distinct ids, in any order: what happens to each request stays."""
    size = len(scenario.requests)
    ids = data.draw(
        st.lists(st.integers(0, 10**6), min_size=size, max_size=size, unique=True)
    )
    renamed = tuple(
        replace(r, id=i) for r, i in zip(scenario.requests, ids, strict=True)
    )
    assert outcome(serve(name, replace(scenario, requests=renamed))) == outcome(
        serve(name, scenario)
    )


@every_scheduler
@cases(5)
@given(scenario=scenarios(max_replicas=2, closed_loop=True), more=st.integers(1, 3))
def test_replicas_beyond_the_concurrency_change_nothing(
    name: str, scenario: Scenario, more: int
) -> None:
    """With c clients the least loaded of c replicas is idle; others never work."""
    enough = replace(
        scenario,
        router="least-outstanding-requests",
        replicas=scenario.max_concurrency or 1,
    )
    wider = serve(name, replace(enough, replicas=enough.replicas + more))
    assert outcome(wider) == outcome(serve(name, enough))
    assert not any(len(log) for log in wider.run.logs[enough.replicas :])


@every_scheduler
@cases(5)
@given(
    scenario=scenarios(max_replicas=3),
    router=st.sampled_from(["round-robin", "random"]),
)
def test_replicas_behind_a_router_that_sees_no_load_are_servers_of_their_own(
    name: str, scenario: Scenario, router: str
) -> None:
    """Each serves what is sent to it as if that were all there is."""
    served = serve(name, replace(scenario, router=router))
    together, records = outcome(served), served.run.records
    for replica in range(scenario.replicas):
        # Who is rejected has no replica; nobody notices where.
        own = [k for k, r in enumerate(records) if r.replica == replica]
        work = tuple(scenario.requests[k] for k in own)
        alone = outcome(serve(name, replace(scenario, requests=work, replicas=1)))
        assert emitted(alone) == emitted([together[k] for k in own])
    if router == "round-robin":
        for k, record in enumerate(records):
            assert record.replica in (-1, k % scenario.replicas)


@every_scheduler
@cases(5)
@given(scenario=scenarios(), copies=st.integers(2, 4))
def test_equal_requests_are_one_request_of_all_their_work(
    name: str, scenario: Scenario, copies: int
) -> None:
    """k equal requests at once run as one whose rows and tokens cost k times as much.

    Where no slot, budget, block or target of an iteration is short. The layer-group
    rule sees k times the tokens of one, so the one's count k times.
    """
    roomy = replace(
        scenario,
        at=replace(scenario.at, max_num_seqs=64, max_num_batched_tokens=10_000),
        num_blocks=100_000,
        target_ns=None,
        lane_tokens=10_000,
    )
    rows = [
        (r.arrival_ns, r.prompt_tokens, r.output_tokens)
        for r in scenario.requests
        for _ in range(copies)
    ]
    price = scenario.pricer
    merged = replace(
        roomy,
        scale=roomy.scale * copies,
        pricer=replace(
            price,
            row_ns=price.row_ns * copies,
            context_ns=price.context_ns * copies,
            token_layer_ns=price.token_layer_ns * copies,
        ),
    )
    many = emitted(outcome(serve(name, replace(roomy, requests=requests(*rows)))))
    one = emitted(outcome(serve(name, merged)))
    assert many == [times for times in one for _ in range(copies)]


@every_scheduler
@cases(5)
@given(scenario=scenarios(max_replicas=2), data=st.data())
def test_the_future_changes_nothing_before_it(
    name: str, scenario: Scenario, data: st.DataObject
) -> None:
    """Cut the trace or change a request: tokens up to its arrival are as they were."""
    at = data.draw(st.integers(0, len(scenario.requests) - 1))
    arrival_ns = scenario.requests[at].arrival_ns
    expected = until(outcome(serve(name, scenario)), arrival_ns)
    other = replace(
        scenario.requests[at],
        prompt_tokens=data.draw(st.integers(1, 30)),
        output_tokens=data.draw(st.integers(1, 30)),
    )
    changed = (*scenario.requests[:at], other, *scenario.requests[at + 1 :])
    assert (
        until(outcome(serve(name, replace(scenario, requests=changed))), arrival_ns)
        == expected
    )
    if at:
        cut = replace(scenario, requests=scenario.requests[:at])
        assert until(outcome(serve(name, cut)), arrival_ns) == expected[:at]


@every_scheduler
@cases(5)
@given(scenario=scenarios(max_replicas=2, closed_loop=True), data=st.data())
def test_nobody_knows_how_long_an_output_will_be(
    name: str, scenario: Scenario, data: st.DataObject
) -> None:
    """Two true lengths of a request show no difference until the shorter one ends."""
    at = data.draw(st.integers(0, len(scenario.requests) - 1))
    length = data.draw(st.integers(1, 40))
    other = replace(scenario.requests[at], output_tokens=length)
    changed = (*scenario.requests[:at], other, *scenario.requests[at + 1 :])
    one = outcome(serve(name, scenario))
    two = outcome(serve(name, replace(scenario, requests=changed)))
    if one[at][3] is None:
        shorter_ends_ns = min(one[at][1][-1], two[at][1][-1])
        assert until(one, shorter_ends_ns) == until(two, shorter_ends_ns)
    else:
        assert one == two


@every_scheduler
@cases(5)
@given(first=scenarios(), data=st.data())
def test_after_a_lull_the_past_is_forgotten(
    name: str, first: Scenario, data: st.DataObject
) -> None:
    """Two traces with a gap in which all drains: each runs as if it were alone."""
    second = data.draw(scenarios()).requests
    early = outcome(serve(name, first))
    lull_ns = max((t for times in emitted(early) for t in times), default=0)
    lull_ns += 1 + first.requests[-1].arrival_ns
    late = tuple(
        Request(
            id=len(first.requests) + k,
            arrival_ns=r.arrival_ns + lull_ns,
            prompt_tokens=r.prompt_tokens,
            output_tokens=r.output_tokens,
        )
        for k, r in enumerate(second)
    )
    both = outcome(serve(name, replace(first, requests=(*first.requests, *late))))
    alone = outcome(serve(name, replace(first, requests=second)))
    assert both == [*early, *moved(alone, lull_ns)]


@every_scheduler
@cases(5)
@given(scenario=scenarios())
def test_memory_for_all_is_memory_without_end(name: str, scenario: Scenario) -> None:
    """Blocks for every request at its longest: as many again change nothing."""
    longest = scenario.at.blocks(scenario.at.max_model_len)
    enough = replace(scenario, num_blocks=longest * len(scenario.requests))
    served = serve(name, enough)
    assert sum(engine.preemptions for engine in served.engines) == 0
    assert outcome(served) == outcome(serve(name, replace(enough, num_blocks=10**9)))


@every_scheduler
@cases(5)
@given(scenario=scenarios())
def test_a_budget_for_all_splits_no_prompt(name: str, scenario: Scenario) -> None:
    """Budget for every token there is: each prompt enters layer 0 whole."""
    everything = sum(r.prompt_tokens + r.output_tokens for r in scenario.requests)
    at = replace(scenario.at, max_num_batched_tokens=everything)
    roomy = replace(scenario, at=at, target_ns=None)
    for step in serve(name, roomy).steps:
        lengths = {q.id: q.tokens for q in step.waiting}
        lengths |= {request_id: tokens for request_id, tokens, _ in step.prefilling}
        assert all(lengths[i] == tokens for i, tokens in step.chunks.items())


@every_scheduler
@cases(5)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 900), st.integers(1, 40), st.integers(1, 9)),
        min_size=2,
        max_size=12,
    ),
    data=st.data(),
)
def test_one_at_a_time_fewer_requests_are_never_slower(
    name: str, rows: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """One sequence: without a request, every other ends as early or earlier.

    True of one server; several, and preemption, have anomalies (Graham 1966).
    """
    rows.sort()
    at = data.draw(st.integers(0, len(rows) - 1))
    full = Scenario(requests(*rows), limits(max_num_seqs=1))
    without = replace(full, requests=requests(*rows[:at], *rows[at + 1 :]))
    ends = [times[-1] for times in emitted(outcome(serve(name, full)))]
    fewer = [times[-1] for times in emitted(outcome(serve(name, without)))]
    del ends[at]
    assert all(a <= b for a, b in zip(fewer, ends, strict=True))
