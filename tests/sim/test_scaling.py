"""Autoscaling: by hand, by law, stepping against fast-forward."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.config_file import load_config
from sim.errors import ConfigError, InvariantError
from sim.events import (
    Event,
    IterationsEnded,
    ReplicaDown,
    ReplicaDraining,
    ReplicaStarting,
    ReplicaUp,
)
from sim.outages import NO_OUTAGES, OffSpan
from sim.runner import run_config
from sim.scaling import Scaling, StableWindow
from sim.schedulers import SCHEDULERS
from sim.shell.cluster import ClusterRun
from tests.cases import cases
from tests.sim.checks.streams import Breaks, altered, hold, nth, without
from tests.sim.pricing import QUICK, Scenario, limits, requests, scenarios
from tests.sim.tape import Tape, fast_and_slow
from tests.sim.test_disaggregation import tokens_of
from tests.sim.test_fast_forward import assert_same
from tests.sim.test_outages import suffered

SCALING = Scaling(1, 2, startup_ns=300, scale_down_delay_ns=1000)
WORK = requests((0, 100, 3), (0, 100, 3), (10, 50, 2), (400, 25, 2), (6000, 8, 1))


def scaled(tape: Tape | None = None) -> ClusterRun:
    case = Scenario(WORK, limits(), replicas=3, router="least-outstanding-requests")
    return suffered("orca", case, NO_OUTAGES, scaling=SCALING, tape=tape)


def test_a_scale_up_and_down_by_hand() -> None:
    """4 layers; 100 ns + 10 per decode + 1 per prompt token and layer; 2 per replica.

    One of three replicas is on. 0, 1 and 2 go there; the third asks for a second
    replica, which starts at 10 and is there at 310, so that 3 goes there at 400:
    100 + 100 ns and one decode, until 710. Replica 0: prompts 0 and 1 (100 + 800) until
    900 with 2 waiting, then 2 with two decodes (100 + 20 + 200) until 1220, then three
    decodes until 1350, which is the last token of all. With 3 gone at 710 three
    requests are left and two replicas wanted; at 1350 none are, and one replica, for
    the first time. At 2350 that has been so for 1000 ns: of two idle replicas the
    higher is drained and off at once. 4 goes to replica 0.
    """
    tape = Tape()
    run = scaled(tape)
    assert tokens_of(run) == [
        [900, 1220, 1350],
        [900, 1220, 1350],
        [1220, 1350],
        [600, 710],
        [6132],
    ]
    assert [r.replica for r in run.records] == [0, 0, 0, 1, 0]
    assert run.fleet.starts == 1
    off = (OffSpan(0, 10, False), OffSpan(2350, None, False))
    assert run.fleet.off == ((), off, (OffSpan(0, None, False),))
    assert run.fleet.unpaid_ns(6132) == 10 + (6132 - 2350) + 6132


def test_a_replica_is_there_after_the_iterations_that_end_then() -> None:
    """As in the first schedule, but replica 1, asked for at 10, is not there at 400.

    Prompts 2 and 3 run on replica 0 with two decodes from 900 on: 100 + 20 + 300 ns.
    """
    tape, at = Tape(), replace(SCALING, startup_ns=1310)
    case = Scenario(WORK, limits(), replicas=3, router="least-outstanding-requests")
    suffered("orca", case, NO_OUTAGES, scaling=at, tape=tape)
    told = [e for e in tape.events if getattr(e, "time_ns", None) == 1320]
    assert [type(e) for e in told[:2]] == [IterationsEnded, ReplicaUp]


def test_every_start_is_counted() -> None:
    """Three requests at once, one wanted per replica: two start, on from 0 on."""
    case = Scenario(requests(*[(0, 10, 9)] * 3), limits(), replicas=3)
    at = Scaling(1, 1, startup_ns=30, scale_down_delay_ns=1000)
    run = suffered("orca", case, NO_OUTAGES, scaling=at)
    assert run.fleet.starts == 2
    assert [spans[0].end_ns for spans in run.fleet.off[1:]] == [0, 0]


def test_a_replica_that_drains_is_taken_back_without_a_start() -> None:
    """Replica 1 starts at 0 for the third request and is there at 300; 3 goes there.

    Prompts 0 to 2 end at 196, then three decodes take 130 ns: 326, 456 (2 ends), two
    120: 576, 696 (1 ends). Two requests are left, for which one replica would do: 10
    ns later replica 1 drains with 3 on it (a tie, the higher index). 4 comes at 1000,
    to replica 0, makes it three requests, and replica 1 is taken back for 5.
    """
    rows = ((0, 8, 30), (0, 8, 5), (0, 8, 3), (310, 8, 20), (1000, 8, 1), (1010, 8, 1))
    at = Scaling(1, 2, startup_ns=300, scale_down_delay_ns=10)
    case = Scenario(requests(*rows), limits(), replicas=2)
    tape = Tape()
    run = suffered("orca", case, NO_OUTAGES, scaling=at, tape=tape)
    kinds = (ReplicaDraining, ReplicaDown, ReplicaStarting, ReplicaUp)
    told = [e for e in tape.events if isinstance(e, kinds)]
    assert {e.replica for e in told} == {1}
    assert [(type(e), e.time_ns) for e in told if e.time_ns <= 1010] == [
        (ReplicaDraining, 0),
        (ReplicaDown, 0),
        (ReplicaStarting, 0),
        (ReplicaUp, 300),
        (ReplicaDraining, 706),
        (ReplicaUp, 1000),
    ]
    assert run.fleet.starts == 1
    assert [r.replica for r in run.records] == [0, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("fast", [True, False])
def test_a_replica_is_taken_back_before_an_iteration_ends_elsewhere(fast: bool) -> None:
    """As above, but 4 comes at 916, when an iteration of replica 0 ends."""
    rows = ((0, 8, 30), (0, 8, 5), (0, 8, 3), (310, 8, 20), (916, 8, 1), (926, 8, 1))
    at = Scaling(1, 2, startup_ns=300, scale_down_delay_ns=10)
    case = Scenario(requests(*rows), limits(), replicas=2)
    tape = Tape()
    suffered("orca", case, NO_OUTAGES, scaling=at, fast=fast, tape=tape)
    told = tape.of(ReplicaUp, IterationsEnded)
    kinds = [type(e) for e in told if e.time_ns == 916]  # type: ignore[union-attr]
    assert kinds == [ReplicaUp, IterationsEnded]


class Naive:
    """Every number with when it began; the largest of those in the window."""

    def __init__(self, width: int, first: int) -> None:
        self.width, self.began = width, [(-(10**9), first)]

    def largest(self, now: int) -> int:
        ends = [began for began, _ in self.began[1:]] + [10**12]
        pairs = zip(self.began, ends, strict=True)
        return max(n for (_, n), end in pairs if end > now - self.width)


@cases(50)
@given(
    width=st.integers(0, 40),
    steps=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 6)), max_size=30),
)
def test_the_window_against_a_list(width: int, steps: list[tuple[int, int]]) -> None:
    window, naive, now = StableWindow(width, 1), Naive(width, 1), 0
    for gap, number in steps:
        for time in range(now, now + gap):
            assert window.largest(time) == naive.largest(time)
            assert window.falls_ns is None or window.falls_ns > time
        now += gap
        window.note(now, number)
        naive.began.append((now, number))


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@QUICK
@given(
    case=st.booleans().flatmap(lambda closed: scenarios(closed_loop=closed)),
    replicas=st.integers(1, 4),
    fewest=st.integers(1, 4),
    target=st.integers(1, 3),
    delays_ns=st.tuples(*[st.sampled_from([0, 1, 150, 4000])] * 2),
    frontend_ns=st.sampled_from([0, 37]),
)
def test_random_loads_keep_every_law_and_fast_forward_is_the_same(
    name: str,
    case: Scenario,
    replicas: int,
    fewest: int,
    target: int,
    delays_ns: tuple[int, int],
    frontend_ns: int,
) -> None:
    """Replicas that are on lie between the fewest and all at any time."""
    case = replace(case, replicas=replicas)
    scaling = Scaling(min(fewest, replicas), target, *delays_ns)
    fast, slow, tape = fast_and_slow(
        partial(
            suffered, name, case, NO_OUTAGES, scaling=scaling, frontend_ns=frontend_ns
        )
    )
    assert_same(fast, slow)
    assert fast.fleet == slow.fleet
    up = replicas
    for event in tape.events:
        up += isinstance(event, ReplicaUp) - isinstance(event, ReplicaDraining)
        assert up >= scaling.min_replicas
    for record in slow.records:
        assert (record.finish_ns is None) == (record.rejected is not None)
        assert record.retries == 0


def recorded() -> list[Event]:
    tape = Tape()
    scaled(tape)
    return tape.events


BROKEN: dict[str, Breaks] = {
    "works before it is there": lambda e: without(e, nth(e, ReplicaUp)),
    "starts twice": lambda e: [
        *e[: nth(e, ReplicaStarting) + 1],
        *e[nth(e, ReplicaStarting) :],
    ],
    "starts though it is on": lambda e: altered(e, nth(e, ReplicaStarting), replica=0),
    "goes off without draining": lambda e: without(e, nth(e, ReplicaDraining, -1)),
    "never off at the start": lambda e: without(e, nth(e, ReplicaDown, 0)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_thing_wrong_is_found(name: str) -> None:
    hold(recorded())
    with pytest.raises(InvariantError, match="availability broken"):
        hold(BROKEN[name](recorded()))


FEW = (
    *("workload.num_requests=80", "workload.request_rate=4.0"),
    *("parallel.replicas=4", "cluster.gpus_per_node=8"),
)


def test_a_whole_run_that_scales() -> None:
    """GPU-hours are those of replicas that are on, and less than of all."""
    on = ("parallel.min_replicas=1", "parallel.startup_s=3.0")
    more = ("parallel.target_outstanding=4", "parallel.scale_down_delay_s=5.0")
    summary = run_config(load_config(None, (*FEW, *on, *more))).summary
    fixed = run_config(load_config(None, FEW)).summary
    assert summary["completed"] == fixed["completed"] == 80
    assert summary["replica_starts"] > 0
    assert 1 < summary["mean_replicas_on"] == summary["mean_replicas_paid"] < 4
    assert summary["mean_ttft_ms"] > fixed["mean_ttft_ms"]
    paid = 2 * summary["mean_replicas_on"] * summary["duration"] / 3600 * 2.5
    tokens = summary["total_output_tokens"] / 1e6
    assert summary["usd_per_million_output_tokens"] * tokens == pytest.approx(paid)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["parallel.min_replicas=1"], "parallel.startup_s = none: must be set if and"),
        (
            ["parallel.min_replicas=5", "parallel.startup_s=1.0", *FEW],
            r"parallel.min_replicas = 5: must be none or <= parallel.replicas \(4\)",
        ),
        (
            [
                *("parallel.min_replicas=1", "parallel.startup_s=1.0", *FEW),
                *("cluster.mtbf_s=9.0", "cluster.repair_s=9.0"),
            ],
            "parallel.min_replicas = 1: must be none with cluster.mtbf_s",
        ),
        (["parallel.min_replicas=0"], "parallel.min_replicas = 0"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(settings: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, settings)
