"""Two Gantt charts by hand for every registered scheduler, six and three requests.

A new scheduler brings its charts: one entry in each of the two tables below.
"""

from __future__ import annotations

import pytest

from sim.schedulers import SCHEDULERS
from tests.sim.pricing import Scenario, Served, limits, requests, serve

# 4 layers; an iteration takes 100 ns + 10 per decoding request + 1 per prompt token
# and layer. Charts are (start, end, prompt tokens by request), layers where not all.
Chart = list[tuple[int, int, dict[int, int]]]


def chart(served: Served) -> Chart:
    return [
        (start, end, step.chunks)
        for (start, end), step in zip(served.spans_ns(), served.steps, strict=True)
    ]


def crowd(budget: int) -> Scenario:
    """Three slots and 15 blocks of 100 tokens, for six requests.

    The first two come together, 2 and 3 while they run, 4 is as long as the context
    (1500) and refused, 5 comes to an idle replica.
    """
    return Scenario(
        requests(
            (0, 600, 3),
            (0, 300, 2),
            (1000, 400, 1),
            (1000, 900, 2),
            (1200, 1500, 9),
            (50_000, 10, 2),
        ),
        limits(
            max_num_batched_tokens=budget,
            max_num_seqs=3,
            max_model_len=1500,
            block_size=100,
        ),
        num_blocks=15,
        groups=4,
    )


CROWD: dict[str, tuple[int, Chart, list[list[int]]]] = {
    "chunked-prefill": (
        500,
        [
            (0, 2100, {0: 500}),  # 100 + 4 x 500
            (2100, 4200, {0: 100, 1: 300, 2: 100}),  # 6 + 3 + 4 blocks, 2 are left
            (4200, 5520, {2: 300}),  # 100 + 20 + 1200; the decodes take the 2 blocks
            (5520, 5630, {}),  # 8 blocks are free, 3 needs 9; 0 leaves
            (5630, 7730, {3: 500}),
            (7730, 9430, {3: 400}),  # 100 + 1600
            (9430, 9540, {}),
            (50_000, 50_140, {5: 10}),
            (50_140, 50_250, {}),
        ],
        [[4200, 5520, 5630], [4200, 5520], [5520], [9430, 9540], [], [50_140, 50_250]],
    ),
    "layered-prefill": (
        1000,
        [
            (0, 1900, {0: 600, 1: 300}),  # 900 tokens, 2 groups: 100 + 2 x 900
            (1900, 3800, {0: 600, 1: 300}),
            (3800, 5520, {2: 400}),  # 1 group: 100 + 20 + 4 x 400
            (5520, 5630, {}),  # 8 blocks are free, 3 needs 9; 0 leaves
            (5630, 7530, {3: 900}),  # 2 groups
            (7530, 9430, {3: 900}),
            (9430, 9540, {}),
            (50_000, 50_140, {5: 10}),
            (50_140, 50_250, {}),
        ],
        [[3800, 5520, 5630], [3800, 5520], [5520], [9430, 9540], [], [50_140, 50_250]],
    ),
    "orca": (
        1000,
        [
            (0, 3700, {0: 600, 1: 300}),  # 100 + 4 x 900
            (3700, 5420, {2: 400}),  # 100 + 20 + 1600; no slot for 3
            (5420, 5530, {}),  # 8 blocks are free, 3 needs 9; 0 leaves
            (5530, 9230, {3: 900}),
            (9230, 9340, {}),
            (50_000, 50_140, {5: 10}),
            (50_140, 50_250, {}),
        ],
        [[3700, 5420, 5530], [3700, 5420], [5420], [9230, 9340], [], [50_140, 50_250]],
    ),
    "static": (
        1000,
        [
            (0, 3700, {0: 600, 1: 300}),
            (3700, 3820, {}),  # 100 + 20; 1 leaves, its slot stays empty
            (3820, 3930, {}),
            (3930, 5630, {2: 400}),  # 400 + 900 is over the budget
            (5630, 9330, {3: 900}),
            (9330, 9440, {}),
            (50_000, 50_140, {5: 10}),
            (50_140, 50_250, {}),
        ],
        [[3700, 3820, 3930], [3700, 3820], [5630], [9330, 9440], [], [50_140, 50_250]],
    ),
}
"""Token budget, chart and token times."""
# Without a target for the iteration the paced policies take all they may: whole prompts
# through all layers, and the whole chunk. So does multiplexed prefill without a clock.
CROWD["adaptive-layered-prefill"] = CROWD["orca"]
CROWD["multiplexed-prefill"] = CROWD["orca"]
CROWD["dynamic-chunked-prefill"] = CROWD["chunked-prefill"]
CROWD["hybrid-prefill"] = (
    1000,
    [
        (0, 1900, {0: 600, 1: 300}),
        (1900, 5400, {0: 600, 1: 300, 2: 400}),  # 100 + 2 x 900 + 4 x 400 in the lane
        (5400, 5520, {}),  # 100 + 20; 4 blocks are free, 3 needs 9
        (5520, 5630, {}),  # 8 blocks; 0 leaves
        *CROWD["layered-prefill"][1][4:],
    ],
    [[5400, 5520, 5630], [5400, 5520], [5400], *CROWD["layered-prefill"][2][3:]],
)

SHORTAGE = Scenario(
    requests((0, 4, 4), (0, 4, 3), (10, 2, 1)),
    limits(block_size=2, max_model_len=8),
    num_blocks=4,
)
SHORT_CHART: Chart = [
    (0, 132, {0: 4, 1: 4}),  # all 4 blocks of 2 tokens
    (132, 242, {}),  # both need a third: 1, the newer one, gives up its 2
    (242, 352, {}),  # 1 block is free; 1 waits for 3, and 2 may not overtake it
    (352, 462, {}),  # 0 takes it, emits its fourth token and leaves
    (462, 590, {1: 5, 2: 2}),  # 100 + 4 x 7: 4 + 1 tokens of 1 over again
    (590, 700, {}),
]
SHORT_TOKENS = [[132, 242, 352, 462], [132, 590, 700], [590]]
SHORT = dict.fromkeys(CROWD, (SHORT_CHART, SHORT_TOKENS))
"""Alike under all: prompts of 7 tokens fit any budget, in one layer group."""


def test_every_scheduler_has_its_charts() -> None:
    """A new registry line is not enough: draw what the policy should do."""
    assert set(CROWD) == set(SHORT) == set(SCHEDULERS)


@pytest.mark.parametrize("name", sorted(CROWD))
def test_six_requests_by_hand(name: str) -> None:
    """Slots, blocks and budget bind in turn; one is refused, one comes late."""
    budget, expected, tokens = CROWD[name]
    served = serve(name, crowd(budget))
    assert chart(served) == expected
    assert served.tokens == tokens
    reasons = [record.rejected for record in served.run.records]
    assert [n for n, reason in enumerate(reasons) if reason] == [4]


@pytest.mark.parametrize("name", sorted(SHORT))
def test_three_requests_short_of_memory_by_hand(name: str) -> None:
    """The newest is evicted, waits in front, and is computed again."""
    expected, tokens = SHORT[name]
    served = serve(name, SHORTAGE)
    assert chart(served) == expected
    assert served.tokens == tokens
    assert [r.preemptions for r in served.run.records] == [0, 1, 0]


def test_layers_of_layered_prefill_by_hand() -> None:
    """The one span of each iteration above that prefills."""
    served = serve("layered-prefill", crowd(1000))
    low, high, all_of_them = (0, 2), (2, 4), (0, 4)
    assert [step.prefill_layers for step in served.steps] == [
        *(low, high, all_of_them, None, low, high, None, all_of_them, None)
    ]
