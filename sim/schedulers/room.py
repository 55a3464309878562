"""Making room for the decode batch: recompute preemption, newest first (as vLLM)."""

from __future__ import annotations

from typing import NamedTuple

from sim.view import EngineLimits, SchedulerView


class Room(NamedTuple):
    """What is left once every decoding request has a slot for its next token."""

    preempted: tuple[int, ...]
    num_decoding: int
    free_blocks: int
    stored_tokens: int

    @property
    def context_tokens(self) -> int:
        """KV tokens the decode batch attends to in the step, new ones included."""
        return self.stored_tokens + self.num_decoding


def make_room(view: SchedulerView, limits: EngineLimits) -> Room:
    """Evict the newest decoding requests until the others' next tokens fit.

    Equal to vLLM's loop (oldest first asks for a block, newest is evicted when none
    is free): both evict the shortest suffix of the batch that frees enough.
    """
    needed, free = view.decode_blocks, view.free_blocks
    decoding, kept = view.num_decoding, view.stored_tokens
    if needed <= free:
        return Room((), decoding, free - needed, kept)
    preempted: list[int] = []
    newest = view.evictions(limits)
    while needed > free:
        request_id, stored, blocks = next(newest)
        preempted.append(request_id)
        decoding -= 1
        kept -= stored
        free += blocks
        needed -= stored % limits.block_size == 0
    return Room(tuple(preempted), decoding, free - needed, kept)
