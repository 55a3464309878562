"""First-come-first-served admission of whole prompts, shared by several policies."""

from __future__ import annotations

from collections.abc import Iterator

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
    free = room.free_blocks
    for queued in view.waiting:
        free -= limits.blocks(queued.tokens)
        if slots <= 0 or free < 0:
            return
        slots -= 1
        yield queued
