"""Layered prefill: layer groups, not token chunks, are the unit of prefill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.schedulers.admission import layered_batch
from sim.schedulers.layer_groups import group_ends
from sim.schedulers.room import make_room
from sim.schedulers.spans import spans_around
from sim.view import EngineLimits, SchedulerView


@dataclass(frozen=True, slots=True)
class LayeredPrefill:
    """Lee et al., arXiv 2510.08055, with the semantics of the authors' code.

    A batch of prompts is admitted only when none is in flight and then moves through
    the layers one group per iteration; every decoding request runs through all layers
    in every iteration and is not charged to the token budget. The group count follows
    from the batch's total prompt tokens; a group lies inside one pipeline stage. A
    prompt beyond ``max_num_batched_tokens`` is cut there, and its rest heads the next
    batch.

    Attributes:
        limits: Engine options.
        num_layer_groups: Most groups a batch is spread over.
        group_rule: Group count from (batch tokens, most groups).
    """

    limits: EngineLimits
    num_layer_groups: int
    group_rule: Callable[[int, int], int]
    steady: bool = True
    stall_free: bool = True
    work_conserving: bool = False

    def plan(self, view: SchedulerView) -> StepPlan:
        """Decode-only layers around the one group that also prefills."""
        room = make_room(view, self.limits)
        batch, done = layered_batch(view, room, self.limits)
        return StepPlan(self._spans(batch, done), room.preempted)

    def _spans(
        self, batch: tuple[PrefillChunk, ...], done: int
    ) -> tuple[LayerSpan, ...]:
        num_layers = self.limits.num_layers
        if not batch:
            return (LayerSpan(0, num_layers),)
        return spans_around(*self.group(batch, done), num_layers, batch)

    def group(self, batch: tuple[PrefillChunk, ...], done: int) -> tuple[int, int]:
        """First layer and the one after the last of the group at layer ``done``."""
        num_layers, ends = self.limits.num_layers, self.limits.stage_ends
        tokens = sum([chunk.tokens for chunk in batch])
        groups = min(self.group_rule(tokens, self.num_layer_groups), num_layers)
        return done, group_ends(num_layers, groups, ends)[done]

    def reject_reason(self, prompt_tokens: int) -> str | None:
        """Any prompt can be cut to the budget."""
        return None
