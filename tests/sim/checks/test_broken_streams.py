"""Every law can fail: one event is broken, and that law is the one that says so."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from sim.checks import CHECKS, INVARIANTS
from sim.checks.batches import StallFreeDecoding
from sim.checks.check import Check
from sim.checks.clocks import BusyTime
from sim.checks.littles_law import LittlesLaw
from sim.checks.results import RESULT_CHECKS
from sim.errors import InvariantError
from sim.events import (
    Arrived,
    IterationsEnded,
    IterationStarted,
    Queued,
    Rejected,
    RunStarted,
    Sent,
)
from sim.plan import StepPlan
from tests.sim.checks.breaks import (
    arrival_after_plan,
    change,
    chunks,
    cost,
    delayed_start,
    drop,
    exchanged,
    finishers,
    limits_with,
    longer_output,
    lost_record,
    one_more_request,
    pause,
    plan_with,
    prompt_again,
    setup_with,
    shifted_run,
    skips,
    spoil_log,
    spoil_record,
    spoil_total,
    state,
    swap,
    twice,
    twice_in_half,
    unlike,
)
from tests.sim.checks.streams import (
    Breaks,
    Events,
    busy,
    end_of,
    hold,
    nth,
    recorded,
    sharing,
)
from tests.sim.pricing import Scenario, limits, requests

NO_DECODE = {"decode": False}
BROKEN: dict[str, dict[str, Breaks]] = {
    "lifecycle": {
        "never queued": drop(Queued, -1),
        "never arrived": drop(Arrived, 3),
        "queued twice": twice(Queued),
        "queued elsewhere": change(Queued, replica=1),
        "sent twice": twice(Sent),
        "rejected though it waits": change(Rejected, request_id=0),
        "unknown": change(Sent, request_id=77),
        "victim does not decode": change(
            IterationStarted, plan=lambda plan: replace(plan, preempted=(0,))
        ),
        "finished prompt runs on": prompt_again,
    },
    "clock-order": {
        "backwards": change(IterationsEnded, 5, time_ns=1, end_ns=(1,)),
        "plan before arrival": arrival_after_plan,
        "plan before the last end": swap(IterationStarted, 2),
        "arrivals exchanged": exchanged,
        "arrives late": change(Arrived, 6, time_ns=lambda t: t + 1),
        "two at once": twice(IterationStarted, 4),
        "ends twice": twice(IterationsEnded, 4),
        "never ends": drop(IterationsEnded, -1),
        "takes no time": change(
            IterationsEnded,
            end_ns=lambda end: (end[0], end[0]),
        ),
        "ends at another time": change(IterationsEnded, end_ns=lambda e: (e[0] - 1,)),
    },
    "transfer-conservation": {
        "queued late": change(RunStarted, frontend_ns=29),
        "queued early": change(RunStarted, frontend_ns=31),
    },
    "client-concurrency": {
        "too many": change(RunStarted, max_concurrency=2),
        "too few": change(RunStarted, max_concurrency=4),
        "held although nothing limits": change(RunStarted, max_concurrency=None),
    },
    "work-conservation": {
        "late": delayed_start,
        "waits on purpose, says not": setup_with(
            lambda setup: replace(setup, work_conserving=True)
        ),
        "idle with work": lambda events: [
            *events[: nth(events, Queued, -1) + 1],
            end_of(events),
        ],
    },
    "prefix-reuse": {
        "other tokens": unlike(1),
        "half a block": skips(7, -1),
        "more than was computed": skips(7, 4),
        "all of the prompt": skips(7, 12),
        "before anybody": skips(0, 4),
    },
    "layers-once": {
        "starts late in the prompt": chunks(0, start=lambda s: s + 1),
        "runs a token too many": chunks(1, tokens=lambda n: n + 1),
        "skips a token": chunks(0, tokens=lambda n: n - 1),
        "layer left out": plan_with(0, last=2),
        "layers too few": change(
            IterationStarted,
            -1,
            plan=lambda plan: StepPlan((replace(plan.spans[-1], first=0, last=3),)),
        ),
        "decodes in some layers": change(
            IterationStarted,
            1,
            plan=lambda plan: StepPlan(
                (replace(plan.spans[0], decode=False), *plan.spans[1:])
            ),
        ),
        "prefill run as a block": change(
            IterationsEnded, end_ns=lambda end: (end[0] - 1, end[0])
        ),
    },
    "batch-limits": {
        "sequences": limits_with(max_num_seqs=2),
        "tokens": limits_with(max_num_batched_tokens=39),
        "a request twice": change(
            IterationStarted,
            plan=lambda plan: StepPlan(
                (
                    replace(plan.spans[0], prefill=twice_in_half(plan.spans[0])),
                    *plan.spans[1:],
                )
            ),
        ),
    },
    "stall-free-decoding": {"decodes wait": plan_with(-1, **NO_DECODE)},
    "progress": {
        "nothing runs": lambda events: plan_with(-1, **NO_DECODE)(
            setup_with(lambda setup: replace(setup, stall_free=False))(events)
        ),
    },
    "output-exactness": {
        "does not finish": finishers(lambda ids: ids[1:]),
        "finishes twice": finishers(lambda ids: (*ids, ids[0])),
        "another finishes": finishers(lambda ids: (8, *ids[1:])),
        "one token short": longer_output,
        "context limit ignored": limits_with(max_model_len=41),
        "recorded otherwise": spoil_record(output_tokens=lambda n: n - 1),
    },
    "request-conservation": {
        "one too many waits": state(Queued, 1, waiting=1),
        "prefill lost": state(IterationStarted, 0, prefilling=-1),
        "decode lost": state(IterationsEnded, 20, decoding=-1),
        "never came": one_more_request,
        "no record": lost_record,
    },
    "kv-conservation": {
        "pool overdrawn": setup_with(lambda setup: replace(setup, num_blocks=18)),
        "held by nobody": state(IterationsEnded, -1, used_blocks=1),
        "fewer than none": state(Queued, 0, used_blocks=-1),
    },
    "kv-sufficiency": {
        "a block too many": state(IterationStarted, 9, used_blocks=1),
        "a block too few": state(IterationsEnded, 9, used_blocks=-1),
        "logged otherwise": spoil_log("used_blocks", 9, 1),
    },
    "step-cost": {
        "negative": cost(3, kv_bytes=-1),
        "not a number": cost(3, energy_run_j=math.nan),
        "infinite": cost(3, energy_hbm_j=math.inf),
        "half a byte": cost(3, link_bytes=0.5),
        "no time": cost(3, duration_ns=0),
        "waits longer than it takes": cost(3, wait_ns=10**9),
    },
    "causality": {
        "arrival": spoil_record(arrival_ns=lambda t: t + 1),
        "first scheduled": spoil_record(first_scheduled_ns=lambda t: t + 1),
        "first token": spoil_record(first_token_ns=lambda t: t - 1),
        "finish": spoil_record(finish_ns=lambda t: t + 1),
        "preemptions": spoil_record(preemptions=lambda n: n + 1),
        "token times": spoil_record(runs=shifted_run),
        "a token before its time": spoil_log("decode_end_ns", 3, -(10**6)),
        "a late last token": spoil_log("decode_end_ns", -1, 1),
    },
    "token-conservation": {
        "decode rows": spoil_log("decode_tokens", 5, 1),
        "prompt tokens": spoil_log("prefill_layer_tokens", 0, -1),
    },
    "busy-time": {
        "price": change(
            IterationsEnded,
            cost=lambda old: old._replace(duration_ns=old.duration_ns + 1),
        ),
        "sum": spoil_total("duration_ns", 2),
    },
    "energy-conservation": {
        "a part": spoil_total("energy_hbm_j", 1 + 1e-12),
        "by iteration": spoil_log("energy_j", 5, 1e-6),
        "flops": spoil_total("flops", 2),
    },
}
# Laws that another one always overtakes in the full set; each fails on its own too.
ALONE: dict[type[Check], dict[str, Breaks]] = {
    BusyTime: {"a pause": pause},
    LittlesLaw: {
        "in system": state(IterationStarted, 9, decoding=1),
        "in queue": state(IterationStarted, 9, waiting=1),
        "times": spoil_record(finish_ns=lambda t: t + 1),
    },
}
CASES = [
    pytest.param(name, breaks, id=f"{name}: {how}")
    for name, ways in BROKEN.items()
    for how, breaks in ways.items()
]


def stream_for(name: str) -> Events:
    """The run that is broken; some laws are about the client's side."""
    if name == "transfer-conservation":
        return busy(frontend_ns=30)
    if name == "client-concurrency":
        return busy(max_concurrency=3)
    if name == "prefix-reuse":
        return sharing()
    return busy()


@pytest.mark.parametrize(("name", "breaks"), CASES)
def test_a_broken_run_breaks_exactly_that_law(name: str, breaks: Breaks) -> None:
    """The unbroken run passes; the law is named first of all."""
    hold(stream_for(name))
    with pytest.raises(InvariantError) as caught:
        hold(breaks(stream_for(name)))
    assert caught.value.invariant == name
    assert caught.value.time_ns is not None
    assert str(caught.value).startswith(f"{name} broken at {caught.value.time_ns} ns")


@pytest.mark.parametrize(
    ("check", "breaks"),
    [
        pytest.param(check, breaks, id=f"{check.name}: {how}")
        for check, ways in ALONE.items()
        for how, breaks in ways.items()
    ],
)
def test_laws_that_others_overtake_fail_alone(
    check: type[Check], breaks: Breaks
) -> None:
    """Held without the others."""
    hold(busy(), (check,))
    with pytest.raises(InvariantError) as caught:
        hold(breaks(busy()), (check,))
    assert caught.value.invariant == check.name


def test_every_law_has_been_broken() -> None:
    """No law without a way to break it, and every law is listed with its words."""
    elsewhere = {"knowledge-boundary", "availability", "swap-conservation"}
    shown = {*BROKEN, *(check.name for check in ALONE), *elsewhere}
    assert shown == set(INVARIANTS)
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(INVARIANTS.values())
    design = (Path(__file__).parents[3] / "DESIGN.md").read_text()
    assert all(f"`{name}`" in design for name in (*INVARIANTS, *RESULT_CHECKS))


def test_nothing_is_skipped_without_a_cache() -> None:
    events = setup_with(lambda setup: replace(setup, prefix_caching=False))(sharing())
    with pytest.raises(InvariantError, match="layers-once broken at 2000 ns"):
        hold(events)


@pytest.mark.parametrize("kind", [IterationStarted, IterationsEnded])
def test_replicas_go_in_order_at_equal_times(kind: type) -> None:
    """Two replicas with one request each, in step: 0 before 1."""
    events = recorded(
        "orca", Scenario(requests((0, 9, 4), (0, 9, 4)), limits(), replicas=2)
    )
    hold(events)
    with pytest.raises(InvariantError, match="clock-order broken"):
        hold(swap(kind, 1)(events))


def test_no_promise_no_stall() -> None:
    """The same plan breaks nothing under a policy that promises nothing."""
    events = plan_with(-1, **NO_DECODE)(busy())
    setup = setup_with(lambda setup: replace(setup, stall_free=False))(events)
    hold(setup[: nth(setup, IterationStarted, -1) + 1], (StallFreeDecoding,))


def test_an_error_names_time_request_and_replica() -> None:
    """In one line."""
    with pytest.raises(InvariantError) as caught:
        hold(finishers(lambda ids: ids[1:])(busy()))
    error = caught.value
    assert error.request_id is not None
    assert error.replica == 0
    assert str(error) == (
        f"output-exactness broken at {error.time_ns} ns, request {error.request_id},"
        f" replica 0: {error.problem}"
    )
