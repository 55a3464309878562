"""Which waiting requests a policy admits, and how many of their tokens it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest

from sim.plan import PrefillChunk
from sim.schedulers import SCHEDULERS
from sim.schedulers.room import Room, make_room
from sim.view import PrefillState, QueuedRequest, SchedulerView
from tests.sim.pricing import (
    limits,
    scheduler,
)


def view(
    waiting: Sequence[tuple[int, int]],
    num_decoding: int = 0,
    free_blocks: int = 1000,
    prefilling: Sequence[PrefillState] = (),
    resumed: bool = False,
) -> SchedulerView:
    """(id, tokens) waiting behind decodes that need no new block."""
    return SchedulerView(
        waiting=deque(QueuedRequest(i, n, resumed) for i, n in waiting),
        prefilling=tuple(prefilling),
        num_decoding=num_decoding,
        decode_blocks=0,
        free_blocks=free_blocks,
        newest_decoding=lambda: iter(()),
    )


def admitted(name: str, seen: SchedulerView, **changes: int) -> dict[int, int]:
    """Prompt tokens by request in the plan of a policy."""
    plan = scheduler(name, limits(**changes)).plan(seen)
    chunks: list[PrefillChunk] = [c for span in plan.spans for c in span.prefill]
    return {chunk.request_id: chunk.tokens for chunk in chunks}


@pytest.mark.parametrize(
    ("name", "chunk"),
    [("chunked-prefill", 6), ("layered-prefill", 10)],
)
def test_who_charges_decodes_to_the_budget(name: str, chunk: int) -> None:
    """4 decodes leave 6 of 10 tokens under chunked prefill, 10 under layered."""
    seen = view([(1, 20)], num_decoding=4)
    assert admitted(name, seen, max_num_batched_tokens=10) == {1: chunk}


def test_budget_counts_the_decodes_that_are_left() -> None:
    """4 decode, the newest loses its 2 blocks so that 3 get theirs: 10 - 3 tokens."""
    begun = PrefillState(5, 30, computed=10)
    short = view([], num_decoding=4, free_blocks=2, prefilling=[begun])._replace(
        decode_blocks=4,
        newest_decoding=lambda: iter([(9, 32), (8, 16), (7, 16), (6, 16)]),
    )
    plan = scheduler("chunked-prefill", limits(max_num_batched_tokens=10)).plan(short)
    assert plan.preempted == (9,)
    assert plan.spans[0].prefill == (PrefillChunk(5, 10, 7),)


def test_room_is_made_newest_first_by_hand() -> None:
    """Full blocks of 16: each of 4 decodes needs one, and none is free.

    9 gives back 2 and needs none, then 8 gives back 1: 3 blocks for 2, of 32 tokens.
    """
    full = view([], num_decoding=4, free_blocks=0)._replace(
        decode_blocks=4,
        stored_tokens=32 + 16 + 16 + 16,
        newest_decoding=lambda: iter([(9, 32), (8, 16), (7, 16), (6, 16)]),
    )
    assert make_room(full, limits()) == Room((9, 8), 2, 1, 32)


@pytest.mark.parametrize("decodes", [10, 11])
def test_decodes_may_use_up_the_chunk(decodes: int) -> None:
    """Chunked prefill then runs no prompt token, new or in progress."""
    begun = PrefillState(5, 30, computed=10)
    seen = view([(1, 20)], num_decoding=decodes, prefilling=[begun])
    assert admitted("chunked-prefill", seen, max_num_batched_tokens=10) == {}


@pytest.mark.parametrize("name", ["chunked-prefill", "layered-prefill", "orca"])
def test_max_num_seqs_counts_decodes(name: str) -> None:
    """3 of 5 slots decode, so 2 of the 4 waiting enter."""
    seen = view([(i, 5) for i in range(4)], num_decoding=3)
    assert admitted(name, seen, max_num_seqs=5) == {0: 5, 1: 5}
    coming = seen._replace(num_decoding=2, incoming=1)  # a cache on its way has one
    assert admitted(name, coming, max_num_seqs=5) == {0: 5, 1: 5}


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_head_of_the_line_blocks(name: str) -> None:
    """5 free blocks: 1 enters, 2 needs 5 of the 4 left, and 3 may not overtake it."""
    seen = view([(1, 16), (2, 80), (3, 16)], free_blocks=5)
    assert admitted(name, seen) == {1: 16}


@pytest.mark.parametrize("name", ["orca", "static"])
def test_whole_prompt_policies_block_on_the_budget(name: str) -> None:
    """60 + 50 > 100, and 3, which would fit, may not overtake 2."""
    seen = view([(1, 60), (2, 50), (3, 10)])
    assert admitted(name, seen, max_num_batched_tokens=100) == {1: 60}


@pytest.mark.parametrize("name", ["orca", "static"])
def test_resumed_prompt_beyond_the_budget_runs_alone(name: str) -> None:
    """It grew while it decoded; it enters first or not at all."""
    seen = view([(1, 130), (2, 10)], resumed=True)
    assert admitted(name, seen, max_num_batched_tokens=100) == {1: 130}
    seen = view([(2, 10), (1, 130)], resumed=True)
    assert admitted(name, seen, max_num_batched_tokens=100) == {2: 10}


def test_static_admits_nothing_while_any_decodes() -> None:
    """Request-level batching."""
    assert admitted("static", view([(1, 5)], num_decoding=1)) == {}
    assert admitted("static", view([(1, 5)])) == {1: 5}
