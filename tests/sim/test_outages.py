"""Failures and drains of replicas: by hand, by law, stepping against fast-forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.config_file import load_config
from sim.engine import Engine
from sim.errors import ConfigError
from sim.outages import OffSpan, Outage, Outages
from sim.queues import QUEUES
from sim.routers import ROUTERS
from sim.runner import prepare, run_config, run_prepared
from sim.scaling import Scaling
from sim.schedulers import SCHEDULERS
from sim.shell.cluster import Cluster, ClusterRun
from sim.step_parts import PARTS
from tests.sim.pricing import (
    QUICK,
    LinearPricer,
    Scenario,
    limits,
    requests,
    scenarios,
    scheduler_of,
)
from tests.sim.tape import Tape, fast_and_slow
from tests.sim.test_disaggregation import tokens_of
from tests.sim.test_fast_forward import ManyPricer, assert_same
from workloads.outages import draw_outages

NEVER_DONE = (
    r"^cluster.mtbf_s: replica 0 failed 2 times and requests are still not done;"
    " allowed: failures rarer than that$"
)


def outages(count: int, *rows: tuple[int, str, int, int], **more: bool) -> Outages:
    """Of (replica, kind, start, end)."""
    of = tuple(
        tuple(Outage(r, a, b, kind == "failure") for r, kind, a, b in rows if r == k)
        for k in range(count)
    )
    return Outages(of, **more)


def suffered(
    name: str,
    case: Scenario,
    away: Outages,
    *,
    frontend_ns: int = 0,
    fast: bool = True,
    tape: Tape | None = None,
    scaling: Scaling | None = None,
) -> ClusterRun:
    """Serve a scenario while replicas come and go."""
    engines = [
        Engine(
            scheduler_of(name, case),
            case.at,
            case.num_blocks,
            QUEUES[case.queue](),
            prefix_caching=case.prefix_caching,
        )
        for _ in range(case.replicas)
    ]
    p = case.pricer
    cluster = Cluster(
        engines,
        ManyPricer(p.base_ns, p.row_ns, p.context_ns, p.token_layer_ns),
        ROUTERS[case.router](),
        case.max_concurrency,
        frontend_ns,
        fast_forward=fast,
    )
    cluster.suffer(away)
    if scaling is not None:
        cluster.scale(scaling)
    return cluster.run(case.requests, observer=tape or Tape())


THREE = requests((0, 100, 3), (0, 100, 4), (10, 50, 2))


def test_a_failure_by_hand() -> None:
    """4 layers; 100 ns + 10 per decode + 1 per prompt token and layer; round robin.

    0 and 2 go to replica 0, 1 to replica 1. Replica 0: prompt 0 until 500, then prompt
    2 with 0 decoding, 100 + 10 + 200, until 810. It fails at 700: 0 had one token, 200
    ns of the second iteration are lost. Both are sent to replica 1, which decodes 1
    from 500 on: 610, 720; at 720 it takes both prompts, 100 + 10 + 600 until 1430 (1
    has its fourth token), then both decode: 1550 (2 ends) and 1660 (0 ends).
    """
    case = Scenario(THREE, limits(), replicas=2, router="round-robin")
    run = suffered("orca", case, outages(2, (0, "failure", 700, 5000)))
    assert tokens_of(run) == [[1430, 1550, 1660], [500, 610, 720, 1430], [1430, 1550]]
    assert [r.arrival_ns for r in run.records] == [0, 0, 10]
    assert [r.first_scheduled_ns for r in run.records] == [720, 0, 720]
    assert [r.retries for r in run.records] == [1, 0, 1]
    assert [r.replica for r in run.records] == [1, 1, 1]
    log = run.logs[0]
    assert list(log.start_ns) == [0, 500]
    assert list(log.end_ns) == [500, 700]
    assert list(log.prefill_layer_tokens) == [400, 0]  # nothing came of the second
    assert log.totals["duration_ns"] == 700
    assert run.fleet.off == ((OffSpan(700, None, True),), ())
    assert run.fleet.off_ns(1660) == 960
    assert run.fleet.unpaid_ns(1660) == 0
    assert [(r.request.id, r.replica, len(r.runs)) for r in run.fleet.lost] == [
        (0, 0, 1),
        (2, 0, 0),
    ]


def test_an_arrival_in_the_iteration_that_fails_was_not_waiting_when_it_began() -> None:
    """Decodes of 39 ns from 756 on; one arrives at 1069 in the one until 1107."""
    case = Scenario(
        requests((555, 1, 1), (720, 1, 10), (1069, 1, 1)),
        limits(num_layers=1, max_num_seqs=1, max_model_len=11, block_size=1),
        num_blocks=11,
        pricer=LinearPricer(base_ns=36, row_ns=3, token_layer_ns=0),
    )
    away = outages(1, (0, "failure", 1100, 1600))
    fast, slow = (suffered("orca", case, away, fast=f) for f in (True, False))
    assert_same(fast, slow)
    log = fast.logs[0]
    lost = list(log.end_ns).index(1100)
    assert (log.start_ns[lost], log.waiting[lost]) == (1068, 0)


def test_a_drain_by_hand() -> None:
    """Replica 0 drains from 5 on, is off when request 0 is done and back at 900.

    2 goes to replica 1 although it is 0's turn; 3 arrives at 800 and goes there too, 4
    at 950 to replica 0. Request 0: 500, 610, 720; then replica 0 is off.
    """
    work = requests((0, 100, 3), (0, 100, 4), (10, 50, 2), (800, 8, 1), (950, 8, 1))
    case = Scenario(work, limits(), replicas=2, router="round-robin")
    run = suffered("orca", case, outages(2, (0, "drain", 5, 900)))
    assert [r.replica for r in run.records] == [0, 1, 1, 1, 0]
    assert tokens_of(run)[0] == [500, 610, 720]
    assert tokens_of(run)[4] == [950 + 132]
    assert run.fleet.off == ((OffSpan(720, 900, False),), ())
    assert run.fleet.unpaid_ns(10**6) == 180
    assert not run.fleet.lost


def test_requests_wait_at_the_client_while_nobody_serves() -> None:
    """One replica fails at 600 and comes back at 2000: all start over, 3 begins there.

    0 has two tokens of 3 at 610 - it fails before. Latencies count from the arrivals.
    """
    work = requests((0, 100, 3), (900, 50, 1))
    run = suffered(
        "orca", Scenario(work, limits()), outages(1, (0, "failure", 600, 2000))
    )
    # 100 + 4 x 150 ns for both prompts
    assert tokens_of(run) == [[2700, 2810, 2920], [2700]]
    assert [r.arrival_ns for r in run.records] == [0, 900]
    assert [r.retries for r in run.records] == [1, 0]


def test_a_request_on_its_way_to_a_failed_replica_is_sent_again() -> None:
    """30 ns on the way; replica 0 fails at 20 and 0 gets to replica 1 at 60."""
    case = Scenario(requests((0, 10, 1)), limits(), replicas=2, router="round-robin")
    away = outages(2, (0, "failure", 20, 5000))
    run = suffered("orca", case, away, frontend_ns=30)
    assert tokens_of(run) == [[60 + 140]]
    assert run.records[0].retries == 1


def test_a_failure_in_a_run_of_decodes_keeps_what_ended() -> None:
    """100 decodes of 110 ns from 500 on, cut off in the eleventh after 60 ns."""
    work = requests((0, 100, 101))
    case = Scenario(work, limits(), replicas=2)
    run = suffered("orca", case, outages(2, (0, "failure", 500 + 1160, 10**6)))
    log = run.logs[0]
    assert len(log) == 1 + 10 + 1
    assert list(log.end_ns)[-2:] == [1600, 1660]
    assert list(log.decode_tokens) == [0] + [1] * 10 + [0]
    assert tokens_of(run)[0][0] == 1660 + 500


def test_a_law_of_failures_that_lets_nothing_finish_is_refused() -> None:
    """In one line, after the last failure that was drawn."""
    away = outages(1, (0, "failure", 50, 60), (0, "failure", 90, 99), endless=True)
    with pytest.raises(ConfigError, match=NEVER_DONE):
        suffered("orca", Scenario(requests((0, 100, 2)), limits()), away)


def drawn(replicas: int) -> st.SearchStrategy[Outages]:
    """Short and long outages of each replica, one after the other."""
    gaps = st.integers(0, 30) | st.integers(0, 3000)
    row = st.tuples(gaps, gaps.map(lambda ns: ns + 1), st.booleans())

    def of(replica: int, rows: Sequence[tuple[int, int, bool]]) -> tuple[Outage, ...]:
        now, made = 0, []
        for gap, length, failure in rows:
            start = now + gap
            now = start + length + 1
            made.append(Outage(replica, start, now - 1, failure))
        return tuple(made)

    lists = st.lists(row, max_size=6)
    return st.tuples(*[lists] * replicas).map(
        lambda all_rows: Outages(tuple(of(k, rows) for k, rows in enumerate(all_rows)))
    )


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@QUICK
@given(
    data=st.data(),
    case=st.booleans().flatmap(lambda closed: scenarios(closed_loop=closed)),
    replicas=st.integers(1, 3),
    queue=st.sampled_from(sorted(QUEUES)),
    frontend_ns=st.sampled_from([0, 37]),
    caching=st.booleans(),
)
def test_random_outages_lose_nobody_and_fast_forward_is_the_same(
    name: str,
    data: st.DataObject,
    case: Scenario,
    replicas: int,
    queue: str,
    frontend_ns: int,
    caching: bool,
) -> None:
    """Every law at every event; each request finishes exactly once."""
    case = replace(case, queue=queue, replicas=replicas, prefix_caching=caching)
    away = data.draw(drawn(replicas))
    fast, slow, _ = fast_and_slow(
        partial(suffered, name, case, away, frontend_ns=frontend_ns)
    )
    assert_same(fast, slow)
    assert fast.fleet == slow.fleet
    for record, tokens in zip(slow.records, tokens_of(slow), strict=True):
        assert (record.finish_ns is None) == (record.rejected is not None)
        if record.rejected is None:
            assert len(tokens) == record.output_tokens
            assert tokens == sorted(set(tokens))
    assert sum(r.retries for r in slow.records) == len(slow.fleet.lost)


@pytest.mark.long
@pytest.mark.parametrize(
    ("mtbf_ns", "repair_ns"),
    [(1000, 500), (300, 50)],
)
def test_time_to_finish_is_that_of_preemptive_repeat(
    mtbf_ns: int, repair_ns: int
) -> None:
    """Gaver ("A waiting line with interrupted service", 1962), one customer.

    Work S that starts over at every failure, which come at rate f while it runs, with
    mean repair r: E[T] = (exp(f S) - 1) (1 / f + r). S = 500 ns, the replica is up
    first; 400 seeds, in 4 standard errors.
    """
    work, took = requests((0, 100, 1)), []
    for seed in range(400):
        away = draw_outages(seed, 1, mtbf_ns / 1e9, repair_ns / 1e9)
        run = suffered("orca", Scenario(work, limits()), away)
        took.append(run.records[0].finish_ns)
    expected = (np.exp(500 / mtbf_ns) - 1) * (mtbf_ns + repair_ns)
    assert abs(np.mean(took) - expected) < 4 * np.std(took) / 20


SMALL = (
    *("workload.num_requests=60", "workload.request_rate=4.0"),
    *("parallel.replicas=2", "cluster.gpus_per_node=4"),
)


@pytest.mark.parametrize("scheduler", ["layered-prefill", "chunked-prefill"])
def test_a_whole_run_with_outages(tmp_path: Path, scheduler: str) -> None:
    """Files, sums and laws agree; kernels of lost attempts add up to their iterations.

    The time in which a drained replica is off is not paid for.
    """
    path = tmp_path / "outages.csv"
    path.write_text(
        "replica,kind,start_s,end_s\n0,failure,4,7\n1,failure,5.5,6\n1,drain,8,100\n"
    )
    config = load_config(
        None, (*SMALL, f"cluster.outages={path}", f"engine.scheduler={scheduler}")
    )
    result = run_config(config)
    summary, requests_ = result.summary, result.requests
    assert summary["completed"] == 60
    assert summary["retries"] == requests_["retries"].sum() > 0
    assert 1 < summary["mean_replicas_on"] < summary["mean_replicas_paid"] < 2
    per_usd = summary["usd_per_million_output_tokens"]
    usd = per_usd * summary["total_output_tokens"] / 1e6
    paid = 2 * summary["mean_replicas_paid"] * summary["duration"] / 3600 * 2.5
    assert usd == pytest.approx(paid)
    steps = result.steps
    parts = steps[[name for name in steps if name in {f"{p}_ns" for p in PARTS}]]
    sums = parts.sum(axis=1).groupby([steps["replica"], steps["iteration"]]).sum()
    firsts = steps.groupby(["replica", "iteration"])[["start_ns", "end_ns"]].first()
    assert (sums == firsts["end_ns"] - firsts["start_ns"]).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["cluster.mtbf_s=9.0"], "cluster.repair_s = none: must be set if and only if"),
        (
            ["cluster.repair_s=9.0"],
            "cluster.repair_s = 9.0: must be set if and only if",
        ),
        (
            ["cluster.mtbf_s=9.0", "cluster.repair_s=9.0", "cluster.outages=a.csv"],
            "cluster.mtbf_s = 9.0: must be none with cluster.outages",
        ),
        (
            ["cluster.outages=a.csv", "parallel.prefill_replicas=1", *SMALL],
            "must be none with parallel.prefill_replicas",
        ),
    ],
)
def test_settings_that_do_not_fit_are_one_line(settings: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, settings)


def test_a_missing_file_is_one_line() -> None:
    config = load_config(None, [*SMALL, "cluster.outages=/nowhere/a.csv"])
    with pytest.raises(ConfigError, match=r"/nowhere/a.csv: .*allowed: a CSV file"):
        prepare(config)


@pytest.mark.long
def test_a_trace_shows_no_power_while_a_replica_is_off(tmp_path: Path) -> None:
    """From the failure at 4 s to the repair at 7 s: 0 W, then that of idle GPUs."""
    path = tmp_path / "outages.csv"
    path.write_text("replica,kind,start_s,end_s\n0,failure,4,7\n")
    config = load_config(None, (*SMALL, f"cluster.outages={path}"))
    trace = run_prepared(prepare(config), trace=True).trace
    assert trace is not None
    power = {
        e["ts"]: e["args"]["power_w"]
        for e in trace["traceEvents"]
        if e["ph"] == "C" and e["name"] == "power_w" and e["pid"] == 2
    }
    assert power[4e6] == 0
    assert [w for ts, w in power.items() if 4e6 < ts < 7e6] == []
    assert 100 < power[7e6] < 500  # two idle H100 with their contexts
