"""Sessions as they are served: closed loop, think times, and what turns share."""

from __future__ import annotations

import heapq
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.build import build_machine, build_workload_of
from sim.build_cluster import build_cluster
from sim.cli import main
from sim.config_file import load_config
from sim.errors import InvariantError
from sim.events import RunStarted
from sim.prefix import Prefix
from sim.request import Request
from sim.results import run_result
from sim.schedulers import SCHEDULERS
from tests.sim.checks.streams import Events, altered, hold, nth, recorded
from tests.sim.pricing import QUICK, Scenario, limits, scenarios, serve
from tests.sim.tape import fast_and_slow
from tests.sim.test_fast_forward import assert_same, run

Turn = tuple[int, int, int]  # new prompt tokens, output tokens, think time


def talks(*sessions: tuple[int, list[Turn]]) -> tuple[Request, ...]:
    """Requests of sessions (arrival, turns), each as long as all before it."""
    made: list[Request] = []
    for arrival_ns, turns in sessions:
        prefix, context = Prefix(), 0
        for turn, (new, output, think_ns) in enumerate(turns):
            number, prompt = len(made), context + new
            context = prompt + output
            prefix = Prefix(
                (*prefix.segments, 2 * number, 2 * number + 1),
                (*prefix.ends, prompt, context),
            )
            made.append(
                Request(
                    id=number,
                    arrival_ns=arrival_ns,
                    prompt_tokens=prompt,
                    output_tokens=output,
                    prefix=prefix,
                    think_ns=think_ns if turn else None,
                )
            )
    return tuple(made)


def test_a_session_by_hand() -> None:
    """An iteration of n prompt tokens takes 100 + 4 n ns, one of a decode 110 ns.

    10 tokens until 140, two more tokens until 360. After 50 ns of thought the second
    turn brings 13 + 7 = 20 tokens, of which 12 were stored and 12 are whole blocks:
    410 + 100 + 4 x 8 = 542.
    """
    work = talks((0, [(10, 3, 0), (7, 1, 50)]))
    case = Scenario(work, limits(block_size=4), prefix_caching=True)
    first, second = serve("orca", case).run.records
    assert (first.first_token_ns, first.finish_ns) == (140, 360)
    assert (second.arrival_ns, second.first_token_ns) == (410, 542)
    assert second.cached_tokens == 12
    alone = serve("orca", replace(case, prefix_caching=False)).run.records[1]
    assert alone.first_token_ns == 410 + 100 + 4 * 20


def literal(case: Scenario) -> list[tuple[int, int]]:
    """(arrival, finish) under one sequence at a time, from a heap of arrivals."""
    size, pricer = case.at.block_size, case.pricer
    arrivals = [(r.arrival_ns, r.id) for r in case.requests if r.think_ns is None]
    heapq.heapify(arrivals)
    done: dict[int, tuple[int, int]] = {}
    free_ns = 0
    while arrivals:
        arrival_ns, number = heapq.heappop(arrivals)
        request, found = case.requests[number], 0
        if request.think_ns is not None and case.prefix_caching:
            before = case.requests[number - 1]
            stored = before.prompt_tokens + before.output_tokens - 1
            found = min(stored, request.prompt_tokens - 1) // size * size
        work = case.at.num_layers * (request.prompt_tokens - found)
        took_ns = pricer.base_ns + pricer.token_layer_ns * work
        took_ns += (request.output_tokens - 1) * (pricer.base_ns + pricer.row_ns)
        free_ns = max(free_ns, arrival_ns) + took_ns
        done[number] = (arrival_ns, free_ns)
        if number + 1 < len(case.requests):
            think_ns = case.requests[number + 1].think_ns
            if think_ns is not None:
                heapq.heappush(arrivals, (free_ns + think_ns, number + 1))
    return [done[number] for number in range(len(case.requests))]


TURNS = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 8), st.integers(0, 4000)),
    min_size=1,
    max_size=5,
)


@given(
    sessions=st.lists(st.tuples(st.integers(0, 3000), TURNS), min_size=1, max_size=5),
    size=st.integers(1, 7),
    caching=st.booleans(),
)
@QUICK
def test_one_at_a_time_is_a_closed_queue(
    sessions: list[tuple[int, list[Turn]]], size: int, *, caching: bool
) -> None:
    """Against a heap, to the nanosecond; equal times are told apart by an odd share."""
    apart = [
        (97 * at + k, [(n, o, 97 * t + 5 * k + 1) for n, o, t in turns])
        for k, (at, turns) in enumerate(sorted(sessions, key=lambda s: s[0]))
    ]
    at = limits(block_size=size, max_num_seqs=1)
    case = Scenario(talks(*apart), at, prefix_caching=caching)
    twin = literal(case)
    if len({arrival for arrival, _ in twin} | {end for _, end in twin}) < 2 * len(twin):
        return  # an arrival at an end, or two at once: the order is the clock's affair
    records = serve("orca", case).run.records
    assert [(r.arrival_ns, r.finish_ns) for r in records] == twin


@st.composite
def session_scenarios(draw: st.DrawFn) -> Scenario:
    """Random machines under sessions, some of whose turns are too long."""
    case = draw(scenarios(max_replicas=3))
    sessions, now_ns = [], 0
    for gap_ns, turns in draw(
        st.lists(st.tuples(st.integers(0, 2000), TURNS), min_size=1, max_size=5)
    ):
        now_ns += gap_ns
        sessions.append((now_ns, turns))
    slots = draw(st.none() | st.integers(1, 4))
    if slots is not None:
        sessions = [(0, turns) for _, turns in sessions]
    return replace(
        case,
        requests=talks(*sessions),
        max_concurrency=slots,
        prefix_caching=draw(st.booleans()),
    )


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@QUICK
@given(
    case=session_scenarios(),
    frontend_ns=st.sampled_from([0, 37]),
    fewest=st.sampled_from([2, 6]),
)
def test_fast_forward_is_stepping(
    name: str, case: Scenario, frontend_ns: int, fewest: int
) -> None:
    """Bit for bit, under every law; each later turn at its time."""
    fast, slow, _ = fast_and_slow(partial(run, name, case, frontend_ns), fewest)
    assert_same(fast, slow)
    for before, record in zip(fast.records, fast.records[1:], strict=False):
        think_ns = record.request.think_ns
        if think_ns is not None and before.finish_ns is not None:
            assert record.arrival_ns >= before.finish_ns + think_ns
            if case.max_concurrency is None:
                assert record.arrival_ns == before.finish_ns + think_ns


def think_longer(events: Events, by: int) -> Events:
    """The second turn was to come at another time."""
    at = nth(events, RunStarted)
    start = events[at]
    assert isinstance(start, RunStarted)
    told = [
        r if r.think_ns is None else replace(r, think_ns=r.think_ns + by)
        for r in start.requests
    ]
    return altered(events, at, requests=tuple(told))


@pytest.mark.parametrize("by", [-1, 1])
def test_a_turn_at_another_time_breaks_the_clock(by: int) -> None:
    case = Scenario(talks((0, [(10, 3, 0), (7, 1, 50)])), limits())
    events = recorded("orca", case)
    hold(events)
    with pytest.raises(InvariantError, match="clock-order broken at 410 ns, request 1"):
        hold(think_longer(events, by))


REAL = (
    {"engine.scheduler": "chunked-prefill"},
    {
        "engine.scheduler": "layered-prefill",
        "engine.kv_cache_tokens": 24_000,
        "parallel.replicas": 2,
        "parallel.router": "prefix-affinity",
        "cluster.nodes": 2,
    },
)


@pytest.mark.long
@pytest.mark.parametrize("settings", REAL)
def test_results_of_real_kernels_are_the_same(settings: dict[str, object]) -> None:
    """Sessions with caching, every file; the small cache evicts."""
    sessions: dict[str, object] = {
        "engine.enable_prefix_caching": True,
        "workload.dataset": "sharegpt",
        "workload.session_turns_mean": 4.0,
        "workload.session_turn_delay_mean_s": 2.0,
        "workload.request_rate": 2.0,
        "workload.num_requests": 60,
    }
    config = load_config(None, (), sessions | settings)
    machine, workload = build_machine(config), build_workload_of(config)
    fast, slow = (
        run_result(
            config,
            machine,
            workload,
            build_cluster(config, machine, workload, fast_forward=forward).run(
                workload.requests
            ),
        )
        for forward in (True, False)
    )
    assert fast.summary == slow.summary
    assert 0 < fast.summary["prefix_cache_hit_rate"] < 1
    for name in ("requests", "timeseries", "iterations"):
        assert getattr(fast, name).equals(getattr(slow, name)), name


@pytest.mark.long
@pytest.mark.parametrize("caching", [True, False])
def test_the_hit_rate_is_shown_where_there_is_a_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, caching: bool
) -> None:
    """By run and compare, as in result.json; without a cache nobody mentions it."""
    settings = (
        *("workload.dataset=sharegpt", "workload.num_requests=12"),
        *("workload.session_turns_mean=4.0", "workload.session_turn_delay_mean_s=1.0"),
        f"engine.enable_prefix_caching={str(caching).lower()}",
    )
    sets = [word for setting in settings for word in ("--set", setting)]

    def shown(*words: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main([*words, *sets])
        assert caught.value.code == 0
        return capsys.readouterr().out

    told = shown("run", "--out", str(tmp_path))
    rate = json.loads((tmp_path / "result.json").read_text())["prefix_cache_hit_rate"]
    lines = [line for line in told.splitlines() if "Prefix cache hit rate" in line]
    assert [line.split()[-2] for line in lines] == (
        [f"{100 * rate:.2f}"] if caching else []
    )
    where = str(tmp_path / "compared")
    told = shown("compare", "--rates", "1", "--jobs", "1", "--out", where)
    assert ("hits %" in told) == caching
    assert (rate is not None) == caching
