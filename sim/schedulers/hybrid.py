"""Layered prefill for long prompts, chunked prefill for the short ones beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sim.plan import PrefillChunk, StepPlan
from sim.schedulers.admission import admissible
from sim.schedulers.layer_groups import TOKENS_PER_GROUP
from sim.schedulers.layered_prefill import LayeredPrefill
from sim.schedulers.room import Room, make_room
from sim.schedulers.spans import chunks_of, in_flight, spans_around
from sim.view import EngineLimits, SchedulerView


@dataclass(frozen=True, slots=True)
class HybridPrefill:
    """Layered prefill (arXiv 2510.08055) with a lane of chunks (arXiv 2403.02310).

    Under layered prefill a prompt that arrives while a batch is in flight waits for
    all of its groups. Layers and chunks are orthogonal, as that paper says:
    here prompts of up to ``lane_tokens`` together enter in the same iteration
    and run through all layers at once, a chunk of chunked prefill beside the group.
    First come, first served holds: a long prompt at the head of the queue closes the
    lane until it has been admitted itself.

    Attributes:
        limits: Engine options.
        num_layer_groups: Most groups a batch is spread over.
        group_rule: Group count from (batch tokens, most groups).
        lane_tokens: Prompt tokens beside the group; that of the usual chunk.
    """

    limits: EngineLimits
    num_layer_groups: int
    group_rule: Callable[[int, int], int]
    lane_tokens: int = TOKENS_PER_GROUP
    steady: bool = True
    stall_free: bool = True
    work_conserving: bool = False

    def plan(self, view: SchedulerView) -> StepPlan:
        """The plan of layered prefill; a batch in flight shares its iteration."""
        layered = LayeredPrefill(self.limits, self.num_layer_groups, self.group_rule)
        flying = in_flight(view)
        if not flying:
            return layered.plan(view)
        room = make_room(view, self.limits)
        batch, num_layers = chunks_of(flying), self.limits.num_layers
        first, last = layered.group(batch, flying[0].layers_done)
        lane = self._lane(view, room)
        spans = spans_around(first, last, num_layers, batch, lane)
        return StepPlan(spans, room.preempted)

    def _lane(self, view: SchedulerView, room: Room) -> tuple[PrefillChunk, ...]:
        """Whole waiting prompts, first come first served, while the lane has room."""
        left = min(self.lane_tokens, self.limits.max_num_batched_tokens)
        lane: list[PrefillChunk] = []
        for _, chunk in admissible(view, room, self.limits):
            if chunk.tokens > left:
                break
            left -= chunk.tokens
            lane.append(chunk)
        return tuple(lane)

    def reject_reason(self, prompt_tokens: int) -> str | None:
        """Any prompt can be cut to the budget."""
        return None
