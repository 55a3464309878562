"""The four schedulers against Gantt charts drawn by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given

from tests.sim.pricing import (
    QUICK,
    Scenario,
    Served,
    limits,
    outcome,
    requests,
    scenarios,
    scheduler,
    serve,
)

# All charts: 4 layers; an iteration takes 100 ns + 10 per decoding request + 1 per
# prompt token and layer.


def chart(served: Served) -> list[tuple[int, int, dict[int, int]]]:
    """(start, end, prompt tokens by request) of each iteration."""
    return [
        (start, end, step.chunks)
        for (start, end), step in zip(served.spans_ns(), served.steps, strict=True)
    ]


def test_chunked_prefill_by_hand() -> None:
    """Budget 10: decodes are charged first, then the prompt in progress, others."""
    served = serve(
        "chunked-prefill",
        Scenario(
            requests((0, 12, 3), (0, 5, 2), (150, 4, 2)),
            limits(max_num_batched_tokens=10),
        ),
    )
    assert chart(served) == [
        (0, 140, {0: 10}),  # 100 + 4 x 10; the rest of 0 takes 2 of the next budget
        (140, 268, {0: 2, 1: 5}),  # 100 + 4 x 7; request 2 comes at 150, too late
        (268, 404, {2: 4}),  # 100 + 2 decodes x 10 + 4 x 4
        (404, 524, {}),  # 100 + 2 decodes x 10
    ]
    assert served.tokens == [[268, 404, 524], [268, 404], [404, 524]]


def test_layered_prefill_by_hand() -> None:
    """600 tokens take 2 groups of 2 layers; 2100 tokens, 4 groups of 1 layer."""
    served = serve(
        "layered-prefill",
        Scenario(
            requests((0, 600, 3), (50, 500, 2), (60, 1600, 2)), limits(), groups=4
        ),
    )
    assert chart(served) == [
        (0, 1300, {0: 600}),  # 100 + 2 x 600, although nothing decodes
        (1300, 2600, {0: 600}),  # 1 and 2 wait for the boundary; first token of 0
        (2600, 4810, {1: 500, 2: 1600}),  # 100 + 10 + 1 x 2100
        (4810, 7020, {1: 500, 2: 1600}),  # the same; 0 emits its last token
        (7020, 9220, {1: 500, 2: 1600}),  # 100 + 2100
        (9220, 11420, {1: 500, 2: 1600}),  # first tokens of 1 and 2
        (11420, 11540, {}),  # 100 + 2 x 10
    ]
    assert [step.prefill_layers for step in served.steps] == [
        (0, 2),
        (2, 4),
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 4),
        None,
    ]
    assert served.tokens == [[2600, 4810, 7020], [11420, 11540], [11420, 11540]]


WHOLE = Scenario(
    requests((0, 600, 3), (0, 500, 2), (100, 300, 1)),
    limits(max_num_batched_tokens=1000),
)


def test_orca_by_hand() -> None:
    """Whole prompts while they fit in 1000 tokens, with the decodes."""
    served = serve("orca", WHOLE)
    assert chart(served) == [
        (0, 2500, {0: 600}),  # 100 + 4 x 600; 600 + 500 > 1000
        (2500, 5810, {1: 500, 2: 300}),  # 100 + 10 + 4 x 800
        (5810, 5930, {}),  # 100 + 2 x 10
    ]
    assert served.tokens == [[2500, 5810, 5930], [5810, 5930], [5810]]


def test_static_by_hand() -> None:
    """The next batch enters when the last request of this one has left."""
    served = serve("static", WHOLE)
    assert chart(served) == [
        (0, 2500, {0: 600}),
        (2500, 2610, {}),  # 100 + 10
        (2610, 2720, {}),
        (2720, 6020, {1: 500, 2: 300}),  # 100 + 4 x 800
        (6020, 6130, {}),
    ]
    assert served.tokens == [[2500, 2610, 2720], [6020, 6130], [6020]]


@pytest.mark.parametrize("name", ["chunked-prefill", "layered-prefill", "orca"])
def test_preemption_by_hand(name: str) -> None:
    """4 blocks of 2 tokens for two prompts of 4: the newer one is recomputed.

    At 132 both need a third block; 1 is evicted and its 4 + 1 tokens (3 blocks) wait
    until 0, which grows to 4 blocks, has left at 462.
    """
    served = serve(
        name,
        Scenario(
            requests((0, 4, 4), (0, 4, 3)),
            limits(block_size=2, max_model_len=8),
            num_blocks=4,
        ),
    )
    assert chart(served) == [
        (0, 132, {0: 4, 1: 4}),
        (132, 242, {}),
        (242, 352, {}),
        (352, 462, {}),
        (462, 582, {1: 5}),  # 100 + 4 x 5; emits its second token
        (582, 692, {}),
    ]
    assert served.tokens == [[132, 242, 352, 462], [132, 582, 692]]
    assert [r.preemptions for r in served.run.records] == [0, 1]
    assert served.run.records[1].first_scheduled_ns == 0


def test_arrival_at_the_end_of_an_iteration_is_in_the_next_plan() -> None:
    """Ties: at 140 the arrival comes before the plan; at 141 it does not."""
    for arrival, first_token in ((140, 350), (141, 460)):
        served = serve(
            "orca", Scenario(requests((0, 10, 9), (arrival, 25, 1)), limits())
        )
        assert served.spans_ns()[0] == (0, 140)
        # In the plan of 140: 100 + 10 + 4 x 25 = 210; else after a decode of 110.
        assert served.run.records[1].first_token_ns == first_token


@pytest.mark.parametrize("name", ["orca", "static"])
def test_prompts_beyond_the_budget_are_rejected(name: str) -> None:
    """Rejected with the reason; the others run and the simulation ends."""
    served = serve(
        name,
        Scenario(
            requests((0, 101, 5), (0, 100, 1), (1, 500, 1), (2, 7, 1)),
            limits(max_num_batched_tokens=100),
        ),
    )
    reason = "prompt of {} tokens exceeds max_num_batched_tokens = 100"
    reasons = [r.rejected for r in served.run.records]
    assert reasons == [reason.format(101), None, reason.format(500), None]
    assert [len(times) for times in served.tokens] == [0, 1, 0, 1]


@pytest.mark.parametrize("name", ["chunked-prefill", "layered-prefill"])
def test_policies_that_cut_prompts_reject_none(name: str) -> None:
    """Any prompt within the context runs at any budget."""
    at = limits(max_num_batched_tokens=3, max_model_len=60)
    assert scheduler(name, at).reject_reason(59) is None
    served = serve(name, Scenario(requests((0, 59, 1)), at))
    assert [step.entering for step in served.steps] == 19 * [3] + [2]


@QUICK
@given(scenario=scenarios())
def test_batches_up_to_512_tokens_are_equal_under_layered_and_chunked(
    scenario: Scenario,
) -> None:
    """One group is one span over all layers (where no budget binds)."""
    assume(sum(r.prompt_tokens + r.output_tokens for r in scenario.requests) <= 500)
    same = replace(
        scenario, scale=1, at=replace(scenario.at, max_num_batched_tokens=512)
    )
    layered, chunked = serve("layered-prefill", same), serve("chunked-prefill", same)
    assert [s.plan for s in layered.steps] == [s.plan for s in chunked.steps]
    assert outcome(layered) == outcome(chunked)
