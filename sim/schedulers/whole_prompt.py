"""Policies from before chunked prefill, which run each prompt in one iteration."""

from __future__ import annotations

from dataclasses import dataclass

from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.schedulers.admission import admissible
from sim.schedulers.room import Room, make_room
from sim.view import EngineLimits, SchedulerView


def _whole_prompts(
    view: SchedulerView, room: Room, limits: EngineLimits
) -> tuple[PrefillChunk, ...]:
    """Waiting prompts, uncut, while they fit in the token budget.

    A preempted request may have grown past the budget; it then runs alone, so that
    it is not stuck at the head of the queue for ever.
    """
    budget = limits.max_num_batched_tokens
    chunks: list[PrefillChunk] = []
    for queued, chunk in admissible(view, room, limits):
        alone = queued.resumed and not chunks
        if chunk.tokens > budget and not alone:
            break
        chunks.append(chunk)
        budget -= chunk.tokens
    return tuple(chunks)


def _too_long(prompt_tokens: int, limits: EngineLimits) -> str | None:
    budget = limits.max_num_batched_tokens
    if prompt_tokens <= budget:
        return None
    return f"prompt of {prompt_tokens} tokens exceeds max_num_batched_tokens = {budget}"


@dataclass(frozen=True, slots=True)
class Orca:
    """Iteration-level batching (Orca, OSDI'22): whole prompts join decodes at once.

    Prompts come first, uncut, while they fit in the token budget and the KV cache;
    all decoding requests run in the same iteration and wait for those prompts.
    """

    limits: EngineLimits
    steady: bool = True
    stall_free: bool = True
    work_conserving: bool = True

    def plan(self, view: SchedulerView) -> StepPlan:
        """One span over all layers with whole prompts and the decode batch."""
        room = make_room(view, self.limits)
        chunks = _whole_prompts(view, room, self.limits)
        span = LayerSpan(0, self.limits.num_layers, chunks)
        return StepPlan((span,), room.preempted)

    def reject_reason(self, prompt_tokens: int) -> str | None:
        """A prompt beyond the token budget would block the queue for ever."""
        return _too_long(prompt_tokens, self.limits)


@dataclass(frozen=True, slots=True)
class Static:
    """Request-level batching: a batch is admitted when the last one has drained.

    The batching of FasterTransformer, as Orca (OSDI'22) describes its baseline;
    tokens are delivered as they are generated, finished requests leave the batch.
    """

    limits: EngineLimits
    steady: bool = True
    stall_free: bool = True
    work_conserving: bool = False

    def plan(self, view: SchedulerView) -> StepPlan:
        """One span over all layers: a new batch's prompts, or its decodes."""
        room = make_room(view, self.limits)
        chunks: tuple[PrefillChunk, ...] = ()
        if not room.num_decoding:
            chunks = _whole_prompts(view, room, self.limits)
        span = LayerSpan(0, self.limits.num_layers, chunks)
        return StepPlan((span,), room.preempted)

    def reject_reason(self, prompt_tokens: int) -> str | None:
        """A prompt beyond the token budget would block the queue for ever."""
        return _too_long(prompt_tokens, self.limits)
