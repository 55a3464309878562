"""How layered prefill spreads prompts over layer groups, and when it admits them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sim.plan import LayerSpan, PrefillChunk
from sim.schedulers.layer_groups import (
    code_group_count,
    layer_groups,
    paper_group_count,
)
from sim.schedulers.spans import spans_around
from tests.sim.pricing import (
    Scenario,
    Served,
    limits,
    requests,
    serve,
)

# Facts of the published code: groups by total prompt tokens of the batch.
TABLE = {
    16: (1, 2, 4, 8, 16),
    12: (1, 2, 4, 6, 12),
    24: (1, 2, 4, 8, 24),
    4: (1, 2, 4, 4, 4),
}
STEPS = ((1, 512), (513, 1024), (1025, 2048), (2049, 4096), (4097, 8192))


@pytest.mark.parametrize("cap", sorted(TABLE))
def test_group_counts_of_the_published_code(cap: int) -> None:
    """Both ends of every step."""
    for (low, high), groups in zip(STEPS, TABLE[cap], strict=True):
        assert code_group_count(low, cap) == code_group_count(high, cap) == groups


@pytest.mark.parametrize(
    ("cap", "groups"), [(5, 4), (8, 4), (9, 4), (10, 5), (11, 5), (15, 7), (20, 8)]
)
def test_the_step_below_the_cap_is_half_of_it(cap: int, groups: int) -> None:
    """As 6 is of 12 in the published code: rounded down, from 4 to 8."""
    assert code_group_count(2049, cap) == code_group_count(4096, cap) == groups
    assert isinstance(code_group_count(4096, cap), int)


@pytest.mark.parametrize("rule", [code_group_count, paper_group_count])
def test_group_counts_grow_from_one_to_the_cap(rule: Callable[[int, int], int]) -> None:
    """For any cap, more tokens never mean fewer groups."""
    for cap in range(1, 41):
        counts = [rule(n, cap) for n in range(1, 512 * 41, 37)]
        assert counts == sorted(counts)
        assert (counts[0], counts[-1]) == (1, cap)


@pytest.mark.parametrize(
    ("prompt", "cap", "groups"),
    [
        (1, 16, 1),
        (512, 16, 1),
        (513, 16, 2),
        (4097, 16, 9),
        (8192, 16, 16),
        (8192, 12, 12),
    ],
)
def test_group_counts_of_the_paper(prompt: int, cap: int, groups: int) -> None:
    """max(1, ceil(L / 512)), at most the cap (arXiv 2510.08055, section 4.4)."""
    assert paper_group_count(prompt, cap) == groups


@pytest.mark.parametrize("num_layers", [1, 5, 24, 36, 48, 61, 94])
def test_layer_groups_equal_array_split(num_layers: int) -> None:
    """Contiguous and near-equal, as numpy splits, which the published code calls."""
    for groups in range(1, num_layers + 1):
        parts = np.array_split(np.arange(num_layers), groups)
        expected = [(int(part[0]), int(part[-1]) + 1) for part in parts]
        assert list(layer_groups(num_layers, groups)) == expected


@pytest.mark.parametrize(
    ("groups", "ends"),
    [(1, (8, 12)), (3, (4, 8, 12)), (4, (3, 6, 8, 12)), (5, (3, 6, 8, 10, 12))],
)
def test_groups_of_stages_go_where_they_are_largest(
    groups: int, ends: tuple[int, ...]
) -> None:
    """Stages of 8 and 4 layers, a group each at least; the first of equals is split."""
    firsts = (0, *ends[:-1])
    expected = tuple(zip(firsts, ends, strict=True))
    assert layer_groups(12, groups, stage_ends=(8, 12)) == expected


QWEN = limits(num_layers=48, max_model_len=65536)


def stages(served: Served) -> list[tuple[int, tuple[int, int] | None]]:
    """(prompt tokens in flight, layers that prefill) of each iteration."""
    return [(sum(s.chunks.values()), s.prefill_layers) for s in served.steps]


def test_long_prompt_is_chunked_and_layered() -> None:
    """20000 tokens at a budget of 8192: 16 + 16 groups, then 3616 tokens in 8."""
    served = serve("layered-prefill", Scenario(requests((0, 20000, 1)), QWEN))
    sixteen = [(3 * g, 3 * g + 3) for g in range(16)]
    eight = [(6 * g, 6 * g + 6) for g in range(8)]
    assert stages(served) == (
        2 * [(8192, group) for group in sixteen] + [(3616, group) for group in eight]
    )
    starts = [step.plan.spans for step in served.steps]
    first = [next(s.prefill[0].start for s in spans if s.prefill) for spans in starts]
    assert first == 16 * [0] + 16 * [8192] + 8 * [16384]


def test_rest_of_a_long_prompt_heads_the_next_batch() -> None:
    """10000 and 300 tokens: 8192, then 1808 + 300 in 8 groups, finishing together."""
    served = serve(
        "layered-prefill", Scenario(requests((0, 10000, 1), (0, 300, 1)), QWEN)
    )
    assert [s.chunks for s in served.steps] == 16 * [{0: 8192}] + 8 * [
        {0: 1808, 1: 300}
    ]
    assert served.tokens[0] == served.tokens[1]


def test_short_prompt_in_a_long_batch_takes_as_long() -> None:
    """50 tokens admitted with 8000 wait for the same 16 iterations."""
    served = serve(
        "layered-prefill", Scenario(requests((0, 8000, 1), (0, 50, 1)), QWEN)
    )
    ends = [end for _, end in served.spans_ns()]
    assert len(ends) == 16
    assert served.tokens == [[ends[-1]], [ends[-1]]]


def test_a_lane_runs_through_all_layers_around_a_group() -> None:
    """Prompt 1 in layers 2 and 3 of 6; prompt 2 beside it in them and all others."""
    group, lane = PrefillChunk(1, 0, 600), PrefillChunk(2, 0, 30)
    assert spans_around(2, 4, 6, (group,), (lane,)) == (
        LayerSpan(0, 2, (lane,)),
        LayerSpan(2, 4, (group, lane)),
        LayerSpan(4, 6, (lane,)),
    )
    decodes = (LayerSpan(0, 2), LayerSpan(2, 4, (group,)), LayerSpan(4, 6))
    assert spans_around(2, 4, 6, (group,)) == decodes
    assert spans_around(0, 6, 6, (group,)) == (LayerSpan(0, 6, (group,)),)


def test_groups_never_exceed_the_layers() -> None:
    """16 groups of 3 layers are 3 groups."""
    served = serve(
        "layered-prefill", Scenario(requests((0, 8192, 1)), limits(num_layers=3))
    )
    assert [step.prefill_layers for step in served.steps] == [(0, 1), (1, 2), (2, 3)]


def test_layered_prefill_admits_only_at_batch_boundaries() -> None:
    """A prompt that comes during the first of 16 groups starts after the last."""
    served = serve(
        "layered-prefill", Scenario(requests((0, 8000, 1), (1, 50, 1)), QWEN)
    )
    assert [sorted(step.chunks) for step in served.steps] == 16 * [[0]] + [[1]]
    assert served.run.records[1].first_scheduled_ns == served.spans_ns()[16][0]
