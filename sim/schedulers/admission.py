"""First-come-first-served admission, shared by the policies."""

from __future__ import annotations

from collections.abc import Iterator

from sim.plan import PrefillChunk
from sim.schedulers.room import Room
from sim.view import EngineLimits, QueuedRequest, SchedulerView


def admissible(
    view: SchedulerView, room: Room, limits: EngineLimits
) -> Iterator[QueuedRequest]:
    """Yield waiting requests in order while sequence slots and KV blocks last.

    KV blocks are taken for the whole prompt at once. Head-of-line blocking: the first
    request that does not fit ends it. Nothing is admitted in a step that preempts,
    so the victims, which wait in front, are not overtaken.
    """
    if room.preempted:
        return
    slots = limits.max_num_seqs - room.num_decoding - len(view.prefilling)
    slots -= view.incoming
    free = room.free_blocks
    for queued in view.waiting:
        free -= limits.blocks(queued.tokens)
        if slots <= 0 or free < 0:
            return
        slots -= 1
        yield queued


def fill_budget(
    view: SchedulerView, room: Room, limits: EngineLimits, budget: int
) -> tuple[PrefillChunk, ...]:
    """Cut ``budget`` prompt tokens: prompts in progress first, then waiting ones.

    The last prompt is cut where the budget ends.
    """
    chunks: list[PrefillChunk] = []
    for state in view.prefilling:
        tokens = min(state.remaining, budget)
        if tokens > 0:
            chunks.append(PrefillChunk(state.id, state.computed, tokens))
            budget -= tokens
    if budget > 0:
        for queued in admissible(view, room, limits):
            tokens = min(queued.tokens, budget)
            chunks.append(PrefillChunk(queued.id, 0, tokens))
            budget -= tokens
            if budget <= 0:
                break
    return tuple(chunks)
