"""Queues of unequal services follow their exact recursions, to the nanosecond."""

from __future__ import annotations

import heapq
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.schedulers import SCHEDULERS
from tests.cases import cases
from tests.sim.theory import (
    kiefer_wolfowitz_waits,
    lindley_waits,
    queue,
    simulate,
)

# Many equal times among them, so that ties are common.
GAPS_NS = st.integers(0, 30) | st.sampled_from([0, 10, 20])
SERVICES_NS = st.integers(1, 60) | st.sampled_from([10, 20])
JOBS = st.lists(st.tuples(GAPS_NS, SERVICES_NS), min_size=1, max_size=25)


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@cases(6)
@given(jobs=JOBS)
def test_one_server_is_lindleys_recursion(
    name: str, jobs: list[tuple[int, int]]
) -> None:
    """Waits of a replica with one sequence; services differ from request to request."""
    gaps, services = zip(*jobs, strict=True)
    arrivals = list(accumulate(gaps))
    records = simulate(name, queue(arrivals, services))
    waits = lindley_waits(arrivals, services)
    for record, arrival, wait, service in zip(
        records, arrivals, waits, services, strict=True
    ):
        assert record.first_scheduled_ns == arrival + wait
        assert record.finish_ns == arrival + wait + service


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@cases(6)
@given(jobs=JOBS, servers=st.integers(2, 5))
def test_several_servers_are_kiefer_and_wolfowitzs_recursion(
    name: str, jobs: list[tuple[int, int]], servers: int
) -> None:
    """Waits in the central line before c replicas with one sequence each."""
    gaps, services = zip(*jobs, strict=True)
    arrivals = list(accumulate(gaps))
    records = simulate(name, queue(arrivals, services, servers))
    waits = kiefer_wolfowitz_waits(arrivals, services, servers)
    for record, arrival, wait, service in zip(
        records, arrivals, waits, services, strict=True
    ):
        assert record.arrival_ns == record.first_scheduled_ns == arrival + wait
        assert record.finish_ns == arrival + wait + service


@cases(6)
@given(jobs=JOBS, servers=st.integers(1, 5))
def test_all_at_once_is_list_scheduling(
    jobs: list[tuple[int, int]], servers: int
) -> None:
    """A batch of jobs, in order, each to the machine that is free first (Graham 1966).

    And Graham's bound on the makespan: at most (2 - 1/c) times the least possible.
    """
    services = [service for _, service in jobs]
    records = simulate("orca", queue([0] * len(services), services, servers))
    free = servers * [0]
    for record, service in zip(records, services, strict=True):
        start = heapq.heappop(free)
        heapq.heappush(free, start + service)
        assert (record.first_scheduled_ns, record.finish_ns) == (start, start + service)
    makespan = max(record.finish_ns or 0 for record in records)
    least = max(*services, -(-sum(services) // servers))
    assert servers * makespan <= (2 * servers - 1) * least
