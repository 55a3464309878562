"""Layer-wise prefill beside the decodes, on SMs of its own (what-if)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sim.plan import LayerSpan, StepPlan
from sim.schedulers.admission import layered_batch
from sim.schedulers.pace import most_kept
from sim.schedulers.room import Room, make_room
from sim.schedulers.spans import spans_around
from sim.view import EngineLimits, SchedulerView


class PhaseClock(Protocol):
    """Foretells when the two phases of an iteration end."""

    def ends_ns(
        self, plan: StepPlan, decoding: int, context_tokens: int
    ) -> tuple[int, int]:
        """When the decodes and the prompts of a plan end (ns), both begun at 0."""
        ...


@dataclass(frozen=True, slots=True)
class MultiplexedPrefill:
    """PD multiplexing (MuxWise, arXiv 2504.14489, in SGLang ``--enable-pdmux``).

    A batch of prompts moves through the layers on some of the SMs while the decodes run
    through all layers on the others. Every iteration takes it through as many layers as
    end no later than the decodes, one at least, so that the decodes do not wait; SGLang
    launches layers by a budget of tokens x layers and lets the decodes run on. With
    nobody decoding, all remaining layers run at once on the whole GPU, as there.

    Attributes:
        limits: Engine options.
        clock: Foretells the phases; None takes all layers at once.
    """

    limits: EngineLimits
    clock: PhaseClock | None = None
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

        def hidden(layers: int) -> bool:
            return self._hidden(through(layers), room)

        return through(most_kept(num_layers - done, hidden))

    def _hidden(self, plan: StepPlan, room: Room) -> bool:
        """Whether the prompts of a plan end no later than its decodes."""
        if self.clock is None or not room.num_decoding:
            return True
        decode_ns, prefill_ns = self.clock.ends_ns(
            plan, room.num_decoding, room.context_tokens
        )
        return prefill_ns <= decode_ns

    def reject_reason(self, prompt_tokens: int) -> str | None:
        """Any prompt can be cut to the budget."""
        return None
