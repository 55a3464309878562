"""KV blocks: after every begin and finish the free count equals a recount."""

from __future__ import annotations

import pytest
from hypothesis import given

from sim.engine import Engine
from sim.errors import SimulationError
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.request import RequestRecord
from sim.schedulers import SCHEDULERS
from sim.view import SchedulerView
from tests.sim.pricing import QUICK, Scenario, limits, requests, scenarios, scheduler

every_scheduler = pytest.mark.parametrize("name", sorted(SCHEDULERS))


def submit(engine: Engine, *rows: tuple[int, int, int]) -> list[RequestRecord]:
    records = [
        RequestRecord(request=r, arrival_ns=r.arrival_ns, runs=[])
        for r in requests(*rows)
    ]
    for record in records:
        engine.submit(record)
    return records


def blocks_held(engine: Engine, *, reserved: bool) -> int:
    """Blocks of whole prompts in progress, and of what each decode stores.

    While an iteration runs, the slot of its next token is ``reserved``.
    """
    at = engine.limits
    prompts = sum(at.blocks(s.tokens) for s in engine.prefilling.values())
    stored = [kept for _, kept in engine.decoding.newest_first()]
    return prompts + sum(at.blocks(kept + reserved) for kept in stored)


@every_scheduler
@QUICK
@given(scenario=scenarios())
def test_free_blocks_equal_a_recount(name: str, scenario: Scenario) -> None:
    """Used + free = total at every event, never overdrawn, all free after drain.

    Two requests arrive per iteration, so that queues and preemptions build up.
    """
    made = scheduler(name, scenario.at, scenario.groups, scenario.rule, scenario.scale)
    engine = Engine(made, scenario.at, scenario.num_blocks)
    coming = [
        RequestRecord(request=r, arrival_ns=r.arrival_ns, runs=[])
        for r in scenario.requests
    ]
    iteration = 0
    while coming or engine.has_work:
        for record in coming[:2]:
            engine.submit(record)
        del coming[:2]
        if not engine.has_work:
            continue
        plan = engine.plan()
        engine.begin(plan, iteration)
        held = blocks_held(engine, reserved=True)
        assert engine.free_blocks == scenario.num_blocks - held >= 0
        iteration += 1
        engine.finish(plan, iteration)
        held = blocks_held(engine, reserved=False)
        assert engine.free_blocks == scenario.num_blocks - held
    assert engine.free_blocks == scenario.num_blocks
    assert engine.decoding.size == engine.decoding.stored_tokens == 0
    assert not engine.has_work
    assert len(engine.waiting) == len(engine.prefilling) == 0


def test_a_block_is_taken_when_the_last_is_full() -> None:
    """Prompt 16 in blocks of 16: 1 block; its first decode, token 17, takes another.

    The last token is emitted, not stored: prompt 16 and 17 outputs store 32 tokens,
    2 blocks, and a third is never taken (museum 8).
    """
    engine = Engine(scheduler("orca", limits()), limits(), num_blocks=2)
    submit(engine, (0, 16, 17))
    used = []
    while engine.has_work:
        plan = engine.plan()
        engine.begin(plan, 0)
        used.append(2 - engine.free_blocks)
        engine.finish(plan, 1)
    assert used == [1] + 16 * [2]
    assert engine.preemptions == 0


def test_whole_prompt_is_reserved_at_its_first_chunk() -> None:
    """A 100-token prompt takes 7 blocks with its first chunk of 10 tokens."""
    at = limits(max_num_batched_tokens=10)
    engine = Engine(scheduler("chunked-prefill", at), at, num_blocks=9)
    submit(engine, (0, 100, 1))
    plan = engine.plan()
    engine.begin(plan, 0)
    assert [c.tokens for c in plan.spans[0].prefill] == [10]
    assert engine.free_blocks == 9 - 7


def test_preempted_request_frees_its_blocks_and_waits_in_front() -> None:
    """Two requests of 2 tokens in blocks of 2, 3 blocks, one waiting behind.

    Both prompts run (1 block each); at the first decode both need a block and one is
    free, so the newer one loses its block and 2 + 1 tokens wait for recomputation.
    """
    at = limits(block_size=2, max_model_len=6)
    engine = Engine(scheduler("orca", at), at, num_blocks=3)
    records = submit(engine, (0, 2, 4), (0, 2, 4), (0, 4, 2))
    first = engine.plan()
    engine.begin(first, 0)
    engine.finish(first, 1)
    second = engine.plan()
    assert second.preempted == (1,)
    engine.begin(second, 1)
    assert [(q.id, q.tokens, q.resumed) for q in engine.waiting] == [
        (1, 3, True),
        (2, 4, False),
    ]
    assert engine.free_blocks == 1
    assert [r.preemptions for r in records] == [0, 1, 0]
    assert engine.preemptions == 1


class Overcommitted:
    """Admits everything, whatever the memory."""

    stall_free = True

    def plan(self, view: SchedulerView) -> StepPlan:
        chunks = tuple(PrefillChunk(q.id, 0, q.tokens) for q in view.waiting)
        return StepPlan((LayerSpan(0, 4, chunks),))

    def reject_reason(self, prompt_tokens: int) -> str | None:
        return None


def test_overdrawing_the_pool_is_an_error() -> None:
    """A policy that ignores memory is stopped, not simulated."""
    engine = Engine(Overcommitted(), limits(), num_blocks=3)
    submit(engine, (0, 32, 1), (0, 32, 1))
    plan = engine.plan()
    with pytest.raises(SimulationError, match="KV cache overdrawn by 1 blocks"):
        engine.begin(plan, 0)


def test_a_request_no_memory_can_hold_stops_the_run() -> None:
    """Museum 4: no endless loop; the error says that no token can be scheduled."""
    engine = Engine(scheduler("orca", limits()), limits(), num_blocks=1)
    submit(engine, (0, 17, 1))
    with pytest.raises(SimulationError, match="schedules no token"):
        engine.plan()


def test_rejected_request_owes_no_tokens_and_takes_no_blocks() -> None:
    """A prompt beyond the context never enters; its output is not negative."""
    at = limits(max_model_len=10)
    engine = Engine(scheduler("orca", at), at, num_blocks=4)
    (record,) = submit(engine, (0, 25, 3))
    assert record.rejected == "prompt of 25 tokens exceeds max_model_len - 1 = 9"
    assert not engine.has_work
    assert engine.free_blocks == 4
    assert record.output_tokens == 0


def test_prefix_caching_is_asked_for() -> None:
    """An engine that is told nothing keeps no block of who has left."""
    at = limits()
    assert Engine(scheduler("orca", at), at, 9).cache is None
