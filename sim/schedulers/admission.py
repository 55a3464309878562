"""First-come-first-served admission, shared by the policies."""

from __future__ import annotations

from collections.abc import Iterator

from sim.plan import PrefillChunk
from sim.schedulers.room import Room
from sim.schedulers.spans import chunks_of, in_flight
from sim.view import EngineLimits, QueuedRequest, SchedulerView


def admissible(
    view: SchedulerView, room: Room, limits: EngineLimits
) -> Iterator[tuple[QueuedRequest, PrefillChunk]]:
    """Yield waiting requests in order while sequence slots and KV blocks last.

    Each comes with all of its prompt that is to be computed, as one chunk. KV blocks
    are taken for the whole prompt at once. Head-of-line blocking: the first request
    that does not fit ends it, and so does one that waits for its KV blocks on the host.
    Nothing is admitted in a step that preempts, so the victims, which wait in front,
    are not overtaken.
    """
    if room.preempted:
        return
    slots = limits.max_num_seqs - room.num_decoding - len(view.prefilling)
    slots -= view.incoming
    free = room.free_blocks
    fit = view.fits(limits)
    for queued in view.waiting:
        cached, blocks = fit(queued)
        free -= blocks
        if slots <= 0 or free < 0:
            return
        if queued.swapped:
            return
        slots -= 1
        yield queued, PrefillChunk(queued.id, cached, queued.tokens - cached)


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
        for _, chunk in admissible(view, room, limits):
            tokens = min(chunk.tokens, budget)
            chunks.append(PrefillChunk(chunk.request_id, chunk.start, tokens))
            budget -= tokens
            if budget <= 0:
                break
    return tuple(chunks)


def layered_batch(
    view: SchedulerView, room: Room, limits: EngineLimits
) -> tuple[tuple[PrefillChunk, ...], int]:
    """The batch on its way through the layers and the layer it has come to.

    Between two batches it is a new one, of what the budget admits, at layer 0.
    """
    flying = in_flight(view)
    if flying:
        return chunks_of(flying), flying[0].layers_done
    return fill_budget(view, room, limits, limits.max_num_batched_tokens), 0
