"""Laws every registered scheduler keeps on hostile random workloads, exactly."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given

from sim.request import RequestRecord
from sim.schedulers import SCHEDULERS
from sim.view import EngineLimits
from tests.sim.pricing import (
    CHARGE_DECODES,
    QUICK,
    STALL_FREE_CHUNKERS,
    Planned,
    Scenario,
    Served,
    limits,
    outcome,
    scenarios,
    scheduler,
    serve,
)

every_scheduler = pytest.mark.parametrize("name", sorted(SCHEDULERS))


def served_requests(served: Served, replica: int | None = None) -> list[RequestRecord]:
    return [
        r
        for r in served.run.records
        if r.rejected is None and replica in (None, r.replica)
    ]


@every_scheduler
@QUICK
@given(scenario=scenarios(max_replicas=2, closed_loop=True, ahead=True))
def test_every_request_ends_finished_or_rejected_with_a_reason(
    name: str, scenario: Scenario
) -> None:
    """Museum 1, 3, 4: none is dropped, none loops for ever, in closed loop too."""
    served = serve(name, scenario)
    assert [r.request for r in served.run.records] == list(scenario.requests)
    for record in served.run.records:
        assert (record.finish_ns is None) == (record.rejected is not None)
        assert record.rejected is None or record.rejected.startswith("prompt of ")
    assert not any(engine.has_work for engine in served.engines)


@every_scheduler
@QUICK
@given(scenario=scenarios(ahead=True))
def test_only_prompts_that_can_never_run_are_rejected(
    name: str, scenario: Scenario
) -> None:
    """Longer than the context, or than the budget of a policy that cannot cut it.

    Of a policy that is not named here, what it says itself.
    """
    cuts = name in STALL_FREE_CHUNKERS
    budget = scenario.at.max_num_batched_tokens
    policy = scheduler(name, scenario.at)
    for record in serve(name, scenario).run.records:
        prompt = record.request.prompt_tokens
        refused = policy.reject_reason(prompt) is not None
        if cuts or name in ("orca", "static"):
            assert refused == (not cuts and prompt > budget)
        too_long = prompt >= scenario.at.max_model_len or refused
        assert (record.rejected is not None) == too_long


@every_scheduler
@QUICK
@given(scenario=scenarios(max_replicas=2, ahead=True))
def test_requests_emit_exactly_their_tokens(name: str, scenario: Scenario) -> None:
    """True output cut at the context limit, preempted or not (museum 5)."""
    served = serve(name, scenario)
    for record in served_requests(served):
        room = scenario.at.max_model_len - record.request.prompt_tokens
        assert record.output_tokens == min(record.request.output_tokens, room)
        assert len(served.tokens_ns(record)) == record.output_tokens
        assert len(record.runs) <= record.preemptions + 1


@every_scheduler
@QUICK
@given(scenario=scenarios(max_replicas=2, ahead=True))
def test_times_follow_cause_and_effect(name: str, scenario: Scenario) -> None:
    """Arrival <= first scheduled < first token < ... < last token = finish."""
    served = serve(name, scenario)
    for record in served_requests(served):
        times = served.tokens_ns(record)
        assert record.first_scheduled_ns is not None
        assert record.arrival_ns == record.request.arrival_ns
        assert record.arrival_ns <= record.first_scheduled_ns < times[0]
        assert all(a < b for a, b in pairwise(times))
        assert record.first_token_ns == times[0]
        assert record.finish_ns == times[-1]


@every_scheduler
@QUICK
@given(scenario=scenarios(max_replicas=2, ahead=True))
def test_requests_are_first_scheduled_in_order_of_arrival(
    name: str, scenario: Scenario
) -> None:
    """First come, first served, per replica."""
    served = serve(name, scenario)
    for replica in range(scenario.replicas):
        starts = [r.first_scheduled_ns or 0 for r in served_requests(served, replica)]
        assert starts == sorted(starts)


@every_scheduler
@QUICK
@given(scenario=scenarios(max_replicas=2, ahead=True))
def test_tokens_pass_each_layer_once_per_computation(
    name: str, scenario: Scenario
) -> None:
    """Every prompt token runs through every layer once; preemption starts over."""
    served = serve(name, scenario)
    passes: dict[int, list[np.ndarray]] = defaultdict(list)
    for recorder in served.recorders:
        for step in recorder.steps:
            lengths = {q.id: q.tokens for q in step.waiting}
            known = {request_id for request_id, _, _ in step.prefilling}
            for request_id in [i for i in step.chunks if i not in known]:
                shape = (scenario.at.num_layers, lengths[request_id])
                passes[request_id].append(np.zeros(shape, dtype=np.int64))
            for span in step.plan.spans:
                for c in span.prefill:
                    stop = c.start + c.tokens
                    passes[c.request_id][-1][
                        span.first : span.last, c.start : stop
                    ] += 1
    for record in served_requests(served):
        computed = passes.pop(record.request.id)
        assert all((counts == 1).all() for counts in computed)
        emitted, owed = 0, []
        for run in record.runs:
            owed.append(record.request.prompt_tokens + emitted)
            emitted += 1 + run.stop - run.start
        assert [counts.shape[1] for counts in computed] == owed
    assert not passes


@every_scheduler
@QUICK
@given(scenario=scenarios(max_replicas=2, ahead=True))
def test_work_done_is_work_owed(name: str, scenario: Scenario) -> None:
    """Decode rows and prompt tokens of the log add up to those of the requests.

    Each run owes its prompt (with what was emitted before) and one decode per token
    but the first, which leaves with the last prompt token.
    """
    served = serve(name, scenario)
    decodes = prompts = 0
    for record in served_requests(served):
        emitted = 0
        for run in record.runs:
            prompts += record.request.prompt_tokens + emitted
            decodes += run.stop - run.start
            emitted += 1 + run.stop - run.start
    logs = served.run.logs
    layers = scenario.at.num_layers
    assert sum(sum(log.decode_tokens) for log in logs) == decodes
    assert sum(sum(log.prefill_layer_tokens) for log in logs) == layers * prompts


@pytest.mark.parametrize(
    "name", [n for n in sorted(SCHEDULERS) if scheduler(n, limits()).stall_free]
)
@QUICK
@given(scenario=scenarios(ahead=True))
def test_decodes_never_stall(name: str, scenario: Scenario) -> None:
    """A decoding request that is not preempted gets a token in every iteration."""
    served = serve(name, scenario)
    ends = [end for _, end in served.spans_ns()]
    tokens = {r.request.id: set(served.tokens_ns(r)) for r in served.run.records}
    for step, end in zip(served.steps, ends, strict=True):
        assert all(span.decode for span in step.plan.spans)
        for request_id, _ in step.decoding:
            if request_id not in step.plan.preempted:
                assert end in tokens[request_id]


@every_scheduler
@QUICK
@given(scenario=scenarios(ahead=True))
def test_plans_obey_the_limits(name: str, scenario: Scenario) -> None:
    """Sequences, token budget, no request twice, progress in every iteration.

    Chunked prefill charges decodes to the budget; a resumed prompt longer than the
    budget may run alone where prompts are not cut.
    """
    at = scenario.at
    for step in serve(name, scenario).steps:
        decodes = len(step.decoding) - len(step.plan.preempted)
        known = {request_id for request_id, _, _ in step.prefilling}
        admitted = [i for i in step.chunks if i not in known]
        assert decodes + len(known) + len(admitted) <= at.max_num_seqs
        charged = step.entering + (decodes if name in CHARGE_DECODES else 0)
        resumed = {q.id for q in step.waiting if q.resumed}
        lone = name in ("orca", "static") and resumed.issuperset(step.chunks)
        if step.entering and not (lone and len(step.chunks) == 1):
            assert charged <= at.max_num_batched_tokens
        for span in step.plan.spans:
            ids = [chunk.request_id for chunk in span.prefill]
            assert len(set(ids)) == len(ids)
        if name != "hybrid-prefill":  # whose lane spans all layers
            prefills = sum(len(span.prefill) for span in step.plan.spans)
            assert prefills == len(step.chunks)
        assert decodes or step.chunks


def blocks_left(step: Planned, evicted: int, at: EngineLimits) -> int:
    """Free blocks after the next tokens of all but the ``evicted`` newest decodes."""
    freed, kept = step.decoding[:evicted], step.decoding[evicted:]
    need = sum(stored % at.block_size == 0 for _, stored in kept)
    return step.free_blocks + sum(at.blocks(stored) for _, stored in freed) - need


@every_scheduler
@QUICK
@given(scenario=scenarios(ahead=True))
def test_preemption_takes_no_more_than_it_must(name: str, scenario: Scenario) -> None:
    """The newest go first, and one fewer would not have made room."""
    at = scenario.at
    for step in serve(name, scenario).steps:
        order = [request_id for request_id, _ in step.decoding]
        evicted = len(step.plan.preempted)
        assert list(step.plan.preempted) == order[:evicted]
        assert blocks_left(step, evicted, at) >= 0
        assert evicted == 0 or blocks_left(step, evicted - 1, at) < 0


@every_scheduler
@QUICK
@given(scenario=scenarios(max_replicas=2, ahead=True))
def test_no_replica_idles_while_it_has_work(name: str, scenario: Scenario) -> None:
    """Museum 2: iterations are back to back until everything present has left."""
    served = serve(name, scenario)
    for replica in range(scenario.replicas):
        present = served_requests(served, replica)
        spans = served.spans_ns(replica)
        if present:
            assert spans[0][0] == present[0].arrival_ns
        for (_, end), (start, _) in pairwise(spans):
            if start > end:
                waiting = [r for r in present if r.arrival_ns <= end]
                assert all((r.finish_ns or 0) <= end for r in waiting)
                later = [r.arrival_ns for r in present if r.arrival_ns > end]
                assert start == min(later)
            assert start >= end


@every_scheduler
@QUICK
@given(scenario=scenarios(max_replicas=2, ahead=True))
def test_littles_law_holds_on_the_path(name: str, scenario: Scenario) -> None:
    """The area under the number in system is the sum of times in system.

    The log counts requests at each iteration's start; those that arrive during it
    are in the system until its end without being counted.
    """
    served = serve(name, scenario)
    for replica, log in enumerate(served.run.logs):
        spans = served.spans_ns(replica)
        area = sum(
            (running + waiting) * (end - start)
            for running, waiting, (start, end) in zip(
                log.running, log.waiting, spans, strict=True
            )
        )
        time_in_system = 0
        for record in served_requests(served, replica):
            time_in_system += (record.finish_ns or 0) - record.arrival_ns
            for start, end in spans:
                if start < record.arrival_ns < end:
                    area += end - record.arrival_ns
        assert area == time_in_system


@every_scheduler
@QUICK
@given(scenario=scenarios(max_replicas=2, closed_loop=True, ahead=True))
def test_equal_runs_have_equal_outcomes(name: str, scenario: Scenario) -> None:
    """No hidden state: the same scenario twice in one process."""
    assert outcome(serve(name, scenario)) == outcome(serve(name, scenario))


@every_scheduler
@QUICK
@given(scenario=scenarios(closed_loop=True, ahead=True))
def test_closed_loop_keeps_to_its_concurrency(name: str, scenario: Scenario) -> None:
    """At most max_concurrency in progress, and never fewer while requests are held."""
    served = serve(name, scenario)
    slots = scenario.max_concurrency or 0
    present = served_requests(served)
    for record in present:
        now = record.arrival_ns
        ahead = [r for r in present if r.request.id <= record.request.id]
        assert sum((r.finish_ns or 0) > now for r in ahead) <= slots
        if now > record.request.arrival_ns:
            assert now in {r.finish_ns for r in present}
