"""The simulator against queueing theory: exact recursions and stationary formulas.

The stationary formulas must lie inside a 99 % interval over independent replications.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.schedulers import SCHEDULERS
from sim.schedulers.layer_groups import code_group_count
from tests.sim.pricing import (
    QUICK,
    STALL_FREE_CHUNKERS,
    LinearPricer,
    Scenario,
    limits,
    requests,
    serve,
)
from tests.sim.theory import SERVICE_NS, batching_chain, poisson_ns, replicated


def service_ns(name: str, prompt: int, output: int, at_budget: int) -> int:
    """Time of a request that is alone: 4 layers, prices of ``LinearPricer``.

    Per iteration 100 ns, per decode row 10, per prompt token and layer 1; layered
    prefill pays the 100 once per layer group, chunked prefill once per chunk. Alone
    there is nobody to keep a target for, and nobody for the hybrid's lane.
    """
    full, rest = divmod(prompt, at_budget)
    parts = full * [at_budget] + ([rest] if rest else [])
    iterations = len(parts)
    if name in ("layered-prefill", "hybrid-prefill"):
        iterations = sum(min(code_group_count(part, 16), 4) for part in parts)
    return 100 * iterations + 4 * prompt + 110 * (output - 1)


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@QUICK
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 9000), st.integers(1, 1500), st.integers(1, 20)),
        min_size=1,
        max_size=20,
    )
)
def test_one_sequence_is_lindleys_recursion(
    name: str, rows: list[tuple[int, int, int]]
) -> None:
    """Finish(n) = max(arrival(n), finish(n - 1)) + service(n), to the nanosecond."""
    budget = 600 if name in STALL_FREE_CHUNKERS else 1500
    arrivals = np.cumsum([gap for gap, _, _ in rows]).tolist()
    jobs = [(a, p, o) for a, (_, p, o) in zip(arrivals, rows, strict=True)]
    at = limits(max_num_seqs=1, max_num_batched_tokens=budget)
    served = serve(name, Scenario(requests(*jobs), at))
    finish = 0
    for record, (arrival, prompt, output) in zip(served.run.records, jobs, strict=True):
        start = max(arrival, finish)
        finish = start + service_ns(name, prompt, output, budget)
        assert record.first_scheduled_ns == start
        assert record.finish_ns == finish


@QUICK
@given(
    gaps=st.lists(st.integers(0, 2000), min_size=1, max_size=30),
    servers=st.integers(1, 4),
)
def test_round_robin_is_a_recursion_per_replica(gaps: list[int], servers: int) -> None:
    """Replica n mod c sees its own requests only: c Lindley recursions."""
    arrivals = np.cumsum(gaps).tolist()
    scenario = Scenario(
        requests(*((a, 5, 3) for a in arrivals)),
        limits(max_num_seqs=1),
        replicas=servers,
        router="round-robin",
    )
    free = servers * [0]
    for n, record in enumerate(serve("orca", scenario).run.records):
        assert record.replica == n % servers
        start = max(arrivals[n], free[n % servers])
        free[n % servers] = start + service_ns("orca", 5, 3, 8192)
        assert (record.first_scheduled_ns, record.finish_ns) == (
            start,
            free[n % servers],
        )


@QUICK
@given(
    gaps=st.lists(st.integers(0, 900), min_size=1, max_size=30), slots=st.integers(1, 5)
)
def test_equal_services_in_closed_loop_are_kiefer_wolfowitz(
    gaps: list[int], slots: int
) -> None:
    """c replicas of one sequence and c slots: the earliest free server takes the next.

    Clients hold requests until a slot is free, so the replica with nothing to do is
    the one chosen, and the wait at the client is that of a central queue.
    """
    arrivals = np.cumsum(gaps).tolist()
    scenario = Scenario(
        requests(*((a, 5, 2) for a in arrivals)),
        limits(max_num_seqs=1),
        replicas=slots,
        max_concurrency=slots,
    )
    service = service_ns("orca", 5, 2, 8192)
    free = slots * [0]
    for record, arrival in zip(
        serve("orca", scenario).run.records, arrivals, strict=True
    ):
        start = max(arrival, min(free))
        free[free.index(min(free))] = start + service
        assert record.arrival_ns == record.first_scheduled_ns == start
        assert record.finish_ns == start + service


@QUICK
@given(
    gaps=st.lists(st.integers(0, 50), min_size=1, max_size=30),
    outputs=st.integers(1, 9),
)
def test_without_contention_nobody_waits(gaps: list[int], outputs: int) -> None:
    """Rows that cost nothing and limits that never bind: M/G/inf, first in next plan.

    Each iteration takes 100 ns, so a request starts at the next multiple of 100 after
    the busy period began.
    """
    arrivals = np.cumsum(gaps).tolist()
    pricer = LinearPricer(base_ns=100, row_ns=0, token_layer_ns=0)
    rows = [(a, 3, outputs) for a in arrivals]
    served = serve("orca", Scenario(requests(*rows), limits(), pricer=pricer))
    began, busy_until = 0, -1
    for record, arrival in zip(served.run.records, arrivals, strict=True):
        if arrival > busy_until:
            began = arrival
        start = began + -(-(arrival - began) // 100) * 100
        busy_until = max(busy_until, start + 100 * outputs)
        assert record.first_scheduled_ns == start
        assert record.finish_ns == start + 100 * outputs


@pytest.mark.long
def test_mean_wait_of_m_d_1_is_pollaczek_khinchine() -> None:
    """One sequence, equal requests, rho = 0.6: W = rho / (2 (1 - rho)) services."""
    rho, n, warm_up = 0.6, 1500, 200
    pricer = LinearPricer(base_ns=SERVICE_NS, row_ns=0, token_layer_ns=0)

    def mean_wait(rng: np.random.Generator) -> float:
        rows = [(a, 1, 1) for a in poisson_ns(rng, rho, n)]
        at = limits(max_num_seqs=1)
        records = serve(
            "orca", Scenario(requests(*rows), at, pricer=pricer)
        ).run.records
        waits = [(r.first_scheduled_ns or 0) - r.arrival_ns for r in records[warm_up:]]
        return float(np.mean(waits)) / SERVICE_NS

    mean, half_width = replicated("M/D/1", mean_wait)
    theory = rho / (2 * (1 - rho))
    assert abs(mean - theory) < half_width < 0.15 * theory


def test_the_chain_gives_known_values() -> None:
    """M/D/1 at rho = 0.8: W = 1 + 2; batching without a cap: Inoue's bound holds.

    With rate 0.6, t0 0.5 and 1 per request the bound of arXiv 1912.06322 is 3.8203.
    """
    assert batching_chain(0.8, 0.0, 1.0, 1, 1.0) == pytest.approx(3.0, rel=1e-4)
    assert 3.7 < batching_chain(0.6, 0.5, 1.0, 150, 1.0) < 3.8203


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "slots", "leave", "rate"),
    [
        ("orca", 8, 1.0, 0.6),
        ("chunked-prefill", 6, 0.25, 0.14),
        ("layered-prefill", 6, 0.25, 0.14),
    ],
)
def test_mean_time_of_batching_is_that_of_the_chain(
    name: str, slots: int, leave: float, rate: float
) -> None:
    """Steps of 0.5 + 1 per request; geometric outputs are the chain's departures.

    A one-token prompt costs a step like a decode does, so each request takes as many
    steps as it has tokens.
    """
    t0, n, warm_up = 0.5, 800, 100
    pricer = LinearPricer(
        base_ns=SERVICE_NS // 2, row_ns=SERVICE_NS, token_layer_ns=SERVICE_NS // 4
    )

    def mean_time(rng: np.random.Generator) -> float:
        outputs = rng.geometric(leave, n).tolist()
        arrivals = poisson_ns(rng, rate, n)
        rows = [(a, 1, o) for a, o in zip(arrivals, outputs, strict=True)]
        at = limits(max_num_seqs=slots)
        records = serve(name, Scenario(requests(*rows), at, pricer=pricer)).run.records
        times = [(r.finish_ns or 0) - r.arrival_ns for r in records[warm_up:]]
        return float(np.mean(times)) / SERVICE_NS

    mean, half_width = replicated(f"{name}, {slots} slots", mean_time)
    theory = batching_chain(rate, t0, 1.0, slots, leave)
    assert abs(mean - theory) < half_width < 0.15 * theory
