"""Layered prefill whose groups are as large as the target for TBT allows."""

from __future__ import annotations

from dataclasses import dataclass

from sim.plan import LayerSpan, StepPlan
from sim.schedulers.admission import layered_batch
from sim.schedulers.pace import Pace
from sim.schedulers.room import make_room
from sim.schedulers.spans import spans_around
from sim.view import EngineLimits, SchedulerView


@dataclass(frozen=True, slots=True)
class AdaptiveLayeredPrefill:
    """Layered prefill (Lee et al., arXiv 2510.08055) with a group size by slack.

    The paper's group count follows from the prompt tokens alone, whatever the decodes
    can bear, and an idle system goes through all groups too; it leaves both open. Here
    every iteration takes the batch through as many further layers as keep it within
    the target, one at least: many groups beside a large decode batch, few beside a
    small one (the slack rule that vllm-ascend's design of layered prefill proposes).
    With nobody decoding, all remaining layers run at once (SGLang's PD multiplexing,
    arXiv 2504.14489, does so for its layer-wise prefill). Under pipeline parallelism an
    iteration takes the batch to the end of a stage at most.

    Attributes:
        limits: Engine options.
        pace: Target of an iteration.
    """

    limits: EngineLimits
    pace: Pace
    steady: bool = True
    stall_free: bool = True
    work_conserving: bool = False

    def plan(self, view: SchedulerView) -> StepPlan:
        """Decode-only layers around those that also prefill."""
        room = make_room(view, self.limits)
        num_layers = self.limits.num_layers
        batch, done = layered_batch(view, room, self.limits)
        if not batch:
            return StepPlan((LayerSpan(0, num_layers),), room.preempted)

        def through(layers: int) -> StepPlan:
            spans = spans_around(done, done + layers, num_layers, batch)
            return StepPlan(spans, room.preempted)

        most = self.limits.stage_end(done) - done
        return through(self.pace.largest(most, through, room))

    def reject_reason(self, prompt_tokens: int) -> str | None:
        """Any prompt can be cut to the budget."""
        return None
