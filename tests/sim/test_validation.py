"""Every kind of broken plan is an error that names the problem."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest

from sim.engine import Engine
from sim.errors import SimulationError
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.request import RequestRecord
from sim.validation import check_plan
from sim.view import PrefillState, QueuedRequest, SchedulerView
from tests.sim.pricing import limits, requests

AT = limits(max_num_batched_tokens=100, max_num_seqs=4, max_model_len=200)


def view(
    waiting: Sequence[tuple[int, int]] = (),
    prefilling: Sequence[PrefillState] = (),
    decoding: Sequence[int] = (),
    resumed: bool = False,
) -> SchedulerView:
    """A replica with (id, tokens) waiting; decoding ids are oldest first."""
    return SchedulerView(
        waiting=deque(QueuedRequest(i, n, resumed) for i, n in waiting),
        prefilling=tuple(prefilling),
        num_decoding=len(decoding),
        decode_blocks=0,
        free_blocks=50,
        newest_decoding=lambda: iter([(i, 5) for i in reversed(decoding)]),
    )


def chunk(request_id: int, start: int, tokens: int) -> PrefillChunk:
    return PrefillChunk(request_id, start, tokens)


def whole(*chunks: PrefillChunk, decode: bool = True) -> StepPlan:
    """All four layers with these chunks."""
    return StepPlan((LayerSpan(0, 4, chunks, decode),))


def check(plan: StepPlan, seen: SchedulerView, *, stall_free: bool = True) -> None:
    check_plan(plan, seen, AT, stall_free=stall_free)


GOOD = [
    pytest.param(whole(chunk(1, 0, 60), chunk(2, 0, 40)), id="full budget"),
    pytest.param(whole(chunk(1, 0, 25)), id="a prompt cut in two"),
    pytest.param(
        StepPlan((LayerSpan(0, 1, (chunk(1, 0, 60),)), LayerSpan(1, 4))),
        id="first layer group",
    ),
    pytest.param(
        StepPlan(
            (LayerSpan(0, 2, (chunk(1, 0, 9),)), LayerSpan(2, 4, (chunk(1, 0, 9),)))
        ),
        id="two spans that prefill",
    ),
]


@pytest.mark.parametrize("plan", GOOD)
def test_good_plans_pass(plan: StepPlan) -> None:
    """The checks below do not fire on plans a policy may make."""
    check(plan, view(waiting=[(1, 60), (2, 40)], decoding=[8, 9]))


LAYERS = [
    pytest.param(
        (LayerSpan(0, 2), LayerSpan(3, 4)), "gap or overlap at layer 2", id="gap"
    ),
    pytest.param(
        (LayerSpan(0, 2), LayerSpan(1, 4)), "gap or overlap at layer 2", id="overlap"
    ),
    pytest.param((LayerSpan(1, 4),), "gap or overlap at layer 0", id="late start"),
    pytest.param(
        (LayerSpan(0, 0), LayerSpan(0, 4)), "gap or overlap at layer 0", id="empty span"
    ),
    pytest.param((LayerSpan(0, 3),), "cover 3 of 4 layers", id="short"),
    pytest.param((LayerSpan(0, 5),), "cover 5 of 4 layers", id="long"),
    pytest.param((), "cover 0 of 4 layers", id="no span"),
]


@pytest.mark.parametrize(("spans", "problem"), LAYERS)
def test_layers_are_covered_once(spans: tuple[LayerSpan, ...], problem: str) -> None:
    """No gap, no overlap, from the first layer to the last."""
    with pytest.raises(SimulationError, match=problem):
        check(StepPlan(spans), view(decoding=[1]))


def test_decode_runs_in_all_layers_or_none() -> None:
    """Half a forward pass emits no token."""
    plan = StepPlan((LayerSpan(0, 2), LayerSpan(2, 4, decode=False)))
    with pytest.raises(
        SimulationError, match=r"^the decode batch would run in some layers only$"
    ):
        check(plan, view(decoding=[1]))


def test_stalled_decode_breaks_a_stall_free_promise() -> None:
    """The same plan is fine for a policy that promises nothing."""
    plan, seen = whole(chunk(1, 0, 60), decode=False), view([(1, 60)], decoding=[8, 9])
    with pytest.raises(SimulationError, match="2 decoding requests stall"):
        check(plan, seen)
    check(plan, seen, stall_free=False)


def half_done(chunk_tokens: int = 0, layers_done: int = 0) -> PrefillState:
    """Request 1: 60 tokens, 20 computed, perhaps a chunk in flight."""
    return PrefillState(1, 60, computed=20, chunk=chunk_tokens, layers_done=layers_done)


CHUNKS = [
    pytest.param(whole(chunk(1, 0, 20)), half_done(), "out of order", id="run again"),
    pytest.param(whole(chunk(1, 30, 20)), half_done(), "out of order", id="skipped"),
    pytest.param(whole(chunk(1, 20, 41)), half_done(), "no 41 tokens", id="beyond"),
    pytest.param(whole(chunk(1, 20, 0)), half_done(), "no 0 tokens", id="no token"),
    pytest.param(whole(chunk(1, 20, -1)), half_done(), "no -1 tokens", id="negative"),
    pytest.param(
        whole(chunk(1, 20, 5), chunk(1, 25, 5)),
        half_done(),
        "runs layer 0 after 4 layers",
        id="twice in one plan",
    ),
    pytest.param(
        whole(chunk(1, 20, 10)),
        half_done(10, 2),
        "runs layer 0 after 2 layers",
        id="layers again",
    ),
    pytest.param(
        StepPlan((LayerSpan(0, 3), LayerSpan(3, 4, (chunk(1, 20, 10),)))),
        half_done(10, 2),
        "runs layer 3 after 2 layers",
        id="layer skipped",
    ),
    pytest.param(
        StepPlan((LayerSpan(0, 2), LayerSpan(2, 4, (chunk(1, 20, 11),)))),
        half_done(10, 2),
        "out of order",
        id="chunk grew in flight",
    ),
    pytest.param(
        StepPlan(
            (LayerSpan(0, 2, (chunk(1, 20, 10),)), LayerSpan(2, 4, (chunk(1, 20, 5),)))
        ),
        half_done(),
        "out of order",
        id="chunk shrank between spans",
    ),
]


@pytest.mark.parametrize(("plan", "state", "problem"), CHUNKS)
def test_prompt_tokens_run_once_and_in_order(
    plan: StepPlan, state: PrefillState, problem: str
) -> None:
    """Each token through each layer once, never past the prompt."""
    with pytest.raises(SimulationError, match=problem):
        check(plan, view(prefilling=[state]))


def test_new_prompts_start_at_layer_0() -> None:
    """A prompt that skips the first layers has no keys there."""
    plan = StepPlan((LayerSpan(0, 2), LayerSpan(2, 4, (chunk(1, 0, 60),))))
    with pytest.raises(SimulationError, match="request 1 runs layer 2 after 0 layers"):
        check(plan, view([(1, 60)]))


@pytest.mark.parametrize("request_id", [2, 99])
def test_nobody_overtakes_the_queue(request_id: int) -> None:
    """The next request is the first that waits."""
    with pytest.raises(SimulationError, match=f"request {request_id} is not next"):
        check(whole(chunk(request_id, 0, 40)), view([(1, 60), (2, 40)]))


@pytest.mark.parametrize("resumed", [False, True])
def test_token_budget_of_several_prompts(resumed: bool) -> None:
    """61 + 40 tokens exceed a budget of 100."""
    seen = view([(1, 61), (2, 40)], resumed=resumed)
    with pytest.raises(SimulationError, match="101 prefill tokens exceed"):
        check(whole(chunk(1, 0, 61), chunk(2, 0, 40)), seen)


def test_nobody_enters_from_an_empty_queue() -> None:
    with pytest.raises(SimulationError, match="request 2 is not next"):
        check(whole(chunk(2, 0, 40)), view(decoding=[8]))


def test_caches_on_their_way_are_sequences() -> None:
    """Three decode and one comes: four of at most 4, and none for a prompt."""
    seen = view([(1, 10)], decoding=[7, 8, 9])._replace(incoming=1)
    with pytest.raises(SimulationError, match="5 running requests exceed"):
        check(whole(chunk(1, 0, 10)), seen)


def test_token_budget_of_one_fresh_prompt() -> None:
    """Only a resumed request, which may have outgrown the budget, may exceed it."""
    check(whole(chunk(1, 0, 101)), view([(1, 101)], resumed=True))
    with pytest.raises(SimulationError, match="101 prefill tokens exceed"):
        check(whole(chunk(1, 0, 101)), view([(1, 101)]))


def test_number_of_sequences() -> None:
    """Two decode, one prefills and two enter: 5 of at most 4."""
    seen = view([(2, 10), (3, 10)], [half_done()], decoding=[8, 9])
    plan = whole(chunk(1, 20, 40), chunk(2, 0, 10), chunk(3, 0, 10))
    with pytest.raises(SimulationError, match="5 running requests exceed"):
        check(plan, seen)


IDLE = [
    pytest.param(view([(1, 60)]), True, id="requests wait"),
    pytest.param(view(prefilling=[half_done()]), True, id="a prompt is in progress"),
    pytest.param(view(decoding=[8]), False, id="decodes wait for nothing"),
]


@pytest.mark.parametrize(("seen", "stall_free"), IDLE)
def test_a_plan_without_a_token_is_an_error(
    seen: SchedulerView, stall_free: bool
) -> None:
    """It would be repeated for ever."""
    plan = whole(decode=stall_free)
    with pytest.raises(
        SimulationError, match=r"^the plan schedules no token although there is work$"
    ):
        check(plan, seen, stall_free=stall_free)


class Scripted:
    """Answers with the given plans, in order."""

    stall_free = True

    def __init__(self, *plans: StepPlan) -> None:
        self._plans = iter(plans)

    def plan(self, view: SchedulerView) -> StepPlan:
        return next(self._plans)

    def reject_reason(self, prompt_tokens: int) -> str | None:
        return None


class Unhurried(Scripted):
    """Promises nothing."""

    stall_free = False


def run_script(*plans: StepPlan, kind: type[Scripted] = Scripted) -> Engine:
    """Three requests of 10 prompt tokens that do not end here."""
    engine = Engine(kind(*plans), AT, num_blocks=50)
    for request in requests((0, 10, 9), (0, 10, 9), (0, 10, 9)):
        engine.submit(RequestRecord(request=request, arrival_ns=0, runs=[]))
    for time, _ in enumerate(plans):
        plan = engine.plan()
        engine.begin(plan, time)
        engine.finish(plan, time + 1)
    return engine


def test_an_engine_holds_its_policy_to_its_promise() -> None:
    """One decodes while the next prefills alone: wrong if it was never to stall.

    Else its next token is still to come: 10 tokens of each are stored.
    """
    plans = (whole(chunk(0, 0, 10)), whole(chunk(1, 0, 10), decode=False))
    with pytest.raises(SimulationError, match="1 decoding requests stall"):
        run_script(*plans)
    engine = run_script(*plans, kind=Unhurried)
    assert (engine.decoding.size, engine.decoding.stored_tokens) == (2, 20)
    engine = run_script(*plans, whole(chunk(2, 0, 10)), kind=Unhurried)
    assert (engine.decoding.size, engine.decoding.stored_tokens) == (3, 11 + 11 + 10)


ALL_DECODE = whole(chunk(0, 0, 10), chunk(1, 0, 10), chunk(2, 0, 10))


@pytest.mark.parametrize(
    "preempted", [(7,), (2, 2), (2, 1, 0, 0)], ids=["unknown", "twice", "too many"]
)
def test_only_decoding_requests_are_preempted(preempted: tuple[int, ...]) -> None:
    """A victim that does not decode is an error of the policy, named as such."""
    layers = (LayerSpan(0, 4),)
    run_script(ALL_DECODE, StepPlan(layers, (2, 1)))
    with pytest.raises(SimulationError, match="preempt"):
        run_script(ALL_DECODE, StepPlan(layers, preempted))


def test_admission_past_a_victim_is_an_error() -> None:
    """Who is preempted waits in front, so a later request must not enter now."""
    overtakes = StepPlan((LayerSpan(0, 4, (chunk(1, 0, 10),)),), (0,))
    with pytest.raises(SimulationError, match="came first"):
        run_script(whole(chunk(0, 0, 10)), overtakes)


def test_a_prompt_leaves_room_for_one_token() -> None:
    at = limits(max_model_len=50)
    assert at.reject_reason(49) is None
    reason = "prompt of 50 tokens exceeds max_model_len - 1 = 49"
    assert at.reject_reason(50) == reason
