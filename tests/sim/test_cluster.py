"""Routers, the closed-loop client and the iteration log, by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.engine import Engine
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.routers import ROUTERS, Loads, MakeRouter
from sim.routers.at_random import AtRandom
from sim.routers.least_outstanding import (
    LeastOutstandingRequests,
    LeastOutstandingTokens,
)
from sim.routers.power_of_two import PowerOfTwoChoices
from sim.routers.round_robin import RoundRobin
from sim.shell.cluster import Cluster
from sim.step import StepCost
from tests.sim.pricing import (
    QUICK,
    LinearPricer,
    Scenario,
    limits,
    outcome,
    requests,
    scenarios,
    scheduler,
    serve,
    step_cost,
)


def loads(requests: Sequence[int], tokens: Sequence[int] = ()) -> Loads:
    return Loads(requests, tokens or [0] * len(requests))


def test_round_robin_takes_turns() -> None:
    """Whatever the load."""
    router = RoundRobin()
    assert [router.route(loads([9, 0, 0])) for _ in range(5)] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("outstanding", "chosen"), [([2, 1, 3], 1), ([1, 0, 0], 1), ([0, 0], 0), ([5], 0)]
)
def test_least_outstanding_requests(outstanding: list[int], chosen: int) -> None:
    """The fewest in progress; the lowest index on ties."""
    assert LeastOutstandingRequests().route(loads(outstanding)) == chosen


def test_least_outstanding_tokens() -> None:
    """By prompt tokens, whatever the number of requests; the lowest index on ties."""
    router = LeastOutstandingTokens()
    assert router.route(loads([9, 1, 1], [10, 500, 20])) == 0
    assert router.route(loads([1, 9, 9], [10, 5, 5])) == 1


def test_least_outstanding_tokens_by_hand() -> None:
    """A long prompt on replica 0: the others go to replica 1 while its sum is less."""
    rows = requests((0, 90, 1), (1, 30, 1), (2, 30, 1), (3, 80, 1))
    served = serve(
        "orca",
        Scenario(rows, limits(), replicas=2, router="least-outstanding-tokens"),
    )
    assert [r.replica for r in served.run.records] == [0, 1, 1, 1]


def test_at_random_every_open_replica_is_as_likely_whatever_its_load() -> None:
    """Within four standard deviations of a binomial; the one that is away never."""
    router = AtRandom(seed=7)
    busy = Loads([9, 0, 3, 0, 0], [0] * 5, takers=[0, 1, 2, 4])
    count = Counter(router.route(busy) for _ in range(4000))
    assert sorted(count) == [0, 1, 2, 4]
    assert all(abs(n - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5 for n in count.values())


def test_at_random_choices_are_independent() -> None:
    """Of 4000 pairs of successive choices among two, each kind is a quarter."""
    router = AtRandom(seed=11)
    pairs = Counter(
        (router.route(loads([0, 0])), router.route(loads([0, 0]))) for _ in range(4000)
    )
    assert all(abs(n - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5 for n in pairs.values())


def test_power_of_two_choices_draws_pairs_evenly() -> None:
    """Of 5 replicas of equal load each is chosen as often; the busiest never is."""
    router = PowerOfTwoChoices(seed=7)
    count = Counter(router.route(loads([3] * 5)) for _ in range(5000))
    assert all(abs(count[k] - 1000) < 4 * (5000 * 0.2 * 0.8) ** 0.5 for k in range(5))
    assert all(router.route(loads([0, 1, 0, 0, 0])) != 1 for _ in range(1000))


@pytest.mark.parametrize("make", [PowerOfTwoChoices, AtRandom])
def test_draws_are_the_sequence_of_their_seed(make: MakeRouter) -> None:
    def chosen(seed: int) -> list[int]:
        router = make(seed)
        return [router.route(loads([0] * 8)) for _ in range(50)]

    assert chosen(1) == chosen(1) != chosen(2)


def test_two_choices_balance_as_theory_says() -> None:
    """n balls into n bins that never empty: the fullest holds ln ln n / ln 2 + O(1).

    Azar et al. (SIAM J. Comput. 1999); one choice would give ln n / ln ln n ~ 5 at
    n = 10,000, in fact 7 or so; two choices keep it at 4.
    """
    router, bins = PowerOfTwoChoices(seed=3), [0] * 10_000
    view = loads(bins)
    for _ in bins:
        bins[router.route(view)] += 1
    assert max(bins) <= 4


def test_least_outstanding_by_hand() -> None:
    """0 and 1 spread; at 50 both have one, so 2 joins 0; at 200 both are free again.

    Each takes 100 + 4 x 10 = 140 ns, so 0 and 1 end at 140 and 2 at 280 on replica 0:
    3, at 200, finds replica 1 free.
    """
    served = serve(
        "orca",
        Scenario(
            requests((0, 10, 1), (0, 10, 1), (50, 10, 1), (200, 10, 1)),
            limits(),
            replicas=2,
        ),
    )
    assert [r.replica for r in served.run.records] == [0, 1, 0, 1]
    assert [r.finish_ns for r in served.run.records] == [140, 140, 280, 340]


def test_closed_loop_by_hand() -> None:
    """Two slots: the third request is sent when the first ends, and counts from then.

    0 and 1 prefill together: 100 + 4 x 20 = 180; 0 ends there. 2 is sent at 180 and
    joins the decode of 1: 100 + 10 + 4 x 10 = 150.
    """
    served = serve(
        "orca",
        Scenario(
            requests((0, 10, 1), (0, 10, 2), (0, 10, 1)), limits(), max_concurrency=2
        ),
    )
    records = served.run.records
    assert [r.arrival_ns for r in records] == [0, 0, 180]
    assert [r.finish_ns for r in records] == [180, 330, 330]


def test_replicas_plan_after_every_iteration_that_ends_then() -> None:
    """Ties: at 140 both replicas end; 1 leaves and 2 is sent to replica 0 at once.

    Replica 0, whose iteration ended first, already plans with it: 100 + 10 + 4 x 10.
    """
    served = serve(
        "orca",
        Scenario(
            requests((0, 10, 2), (0, 10, 1), (0, 10, 1)),
            limits(),
            replicas=2,
            router="round-robin",
            max_concurrency=2,
        ),
    )
    records = served.run.records
    assert [r.replica for r in records] == [0, 1, 0]
    assert [r.finish_ns for r in records] == [290, 140, 290]


def test_rejected_requests_hold_no_slot() -> None:
    """With one slot, a prompt beyond the context lets the next one pass at once."""
    served = serve(
        "orca",
        Scenario(
            requests((0, 99, 1), (0, 10, 1)),
            limits(max_model_len=50),
            max_concurrency=1,
        ),
    )
    assert [r.finish_ns for r in served.run.records] == [None, 140]


def test_rejected_requests_belong_to_no_replica() -> None:
    """Refused at the door: replica -1, as the record says."""
    served = serve("orca", Scenario(requests((0, 99, 1)), limits(max_model_len=50)))
    assert served.run.records[0].replica == -1


@pytest.mark.long
@QUICK
@given(scenario=scenarios())
def test_one_replica_behind_a_router_is_the_replica_alone(scenario: Scenario) -> None:
    """Every router has the same single choice."""
    outcomes = [
        outcome(
            serve(
                "layered-prefill",
                Scenario(
                    scenario.requests, scenario.at, scenario.num_blocks, router=name
                ),
            )
        )
        for name in sorted(ROUTERS)
    ]
    assert outcomes[0] == outcomes[1]


@QUICK
@given(scenario=scenarios(max_replicas=2), shift=st.integers(0, 10**12))
def test_later_arrivals_shift_everything(scenario: Scenario, shift: int) -> None:
    """Shift arrivals by D and every token leaves D later; clocks are exact."""
    rows = [
        (r.arrival_ns + shift, r.prompt_tokens, r.output_tokens)
        for r in scenario.requests
    ]
    moved = Scenario(**{**vars(scenario), "requests": requests(*rows)})
    expected = [
        (replica, [t + shift for t in times], evicted, rejected)
        for replica, times, evicted, rejected in outcome(serve("orca", scenario))
    ]
    assert outcome(serve("orca", moved)) == expected


@QUICK
@given(scenario=scenarios(max_replicas=2), factor=st.integers(2, 1000))
def test_a_slower_clock_scales_everything(scenario: Scenario, factor: int) -> None:
    """All arrivals and prices times k: all token times times k."""
    rows = [
        (r.arrival_ns * factor, r.prompt_tokens, r.output_tokens)
        for r in scenario.requests
    ]
    prices = {name: value * factor for name, value in vars(scenario.pricer).items()}
    slow = Scenario(
        **{
            **vars(scenario),
            "requests": requests(*rows),
            "pricer": LinearPricer(**prices),
        }
    )
    name = "chunked-prefill"
    expected = [
        (replica, [t * factor for t in times], evicted, rejected)
        for replica, times, evicted, rejected in outcome(serve(name, scenario))
    ]
    assert outcome(serve(name, slow)) == expected


class Priced:
    """One cost for every iteration."""

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        return step_cost(
            1000, wait_ns=300, kv_bytes=7, energy_run_j=1.5, energy_hbm_j=0.25
        )


def test_log_by_hand() -> None:
    """Queues, blocks, tokens and sums of the chart of two requests on one slot."""
    served = serve(
        "orca",
        Scenario(
            requests((0, 20, 3), (0, 5, 1)),
            limits(max_num_seqs=1),
            num_blocks=10,
            pricer=Priced(),  # type: ignore[arg-type]
        ),
    )
    log = served.run.logs[0]
    assert len(log) == 4
    assert list(log.start_ns) == [0, 1000, 2000, 3000]
    assert list(log.end_ns) == [1000, 2000, 3000, 4000]
    assert list(log.decode_end_ns) == [2000, 3000]
    assert list(log.running) == [1, 1, 1, 1]
    assert list(log.waiting) == [1, 1, 1, 0]
    assert list(log.used_blocks) == [2, 2, 2, 1]
    assert list(log.prefill_layer_tokens) == [80, 0, 0, 20]
    assert list(log.decode_tokens) == [0, 1, 1, 0]
    assert list(log.energy_j) == [1.75, 1.75, 1.75, 1.75]
    totals = {name: value for name, value in log.totals.items() if value}
    assert totals == {
        "duration_ns": 4000,
        "wait_ns": 1200,
        "kv_bytes": 28,
        "energy_run_j": 6.0,
        "energy_hbm_j": 1.0,
    }


def test_log_counts_layers_not_tokens() -> None:
    """600 prompt tokens in 2 groups of 2 layers: 1200 token-layers each."""
    served = serve("layered-prefill", Scenario(requests((0, 600, 1)), limits()))
    assert list(served.run.logs[0].prefill_layer_tokens) == [1200, 1200]
    spans = served.steps[0].plan.spans
    assert spans == (LayerSpan(0, 2, (PrefillChunk(0, 0, 600),)), LayerSpan(2, 4))


def test_a_front_end_delays_the_engine_and_counts_in_ttft() -> None:
    """Alone, a request runs as without a front end, 30 ns later."""
    at = limits()
    engine = Engine(scheduler("orca", at), at, num_blocks=100)
    router = ROUTERS["round-robin"]()
    cluster = Cluster([engine], LinearPricer(), router, None, frontend_ns=30)
    run = cluster.run(requests((0, 10, 1), (500, 10, 1)))
    bare = serve("orca", Scenario(requests((0, 10, 1), (500, 10, 1)), at)).run
    for late, now in zip(run.records, bare.records, strict=True):
        assert late.arrival_ns == now.arrival_ns
        assert now.first_token_ns is not None
        assert late.first_token_ns == now.first_token_ns + 30


def test_a_delayed_arrival_is_in_the_plan_of_its_nanosecond() -> None:
    """Ties: what leaves the front end at 170 comes before the plan of 170, at 171 not.

    The first request reaches the engine at 30 and runs until 30 + 100 + 4 x 10 = 170.
    """
    for sent, first_token in ((140, 380), (141, 490)):
        at = limits()
        engine = Engine(scheduler("orca", at), at, num_blocks=100)
        router = ROUTERS["round-robin"]()
        cluster = Cluster([engine], LinearPricer(), router, None, frontend_ns=30)
        run = cluster.run(requests((0, 10, 9), (sent, 25, 1)))
        assert run.records[1].first_token_ns == first_token
