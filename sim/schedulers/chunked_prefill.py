"""Chunked prefill: one token budget per iteration, decodes first, prompts in chunks."""

from __future__ import annotations

from dataclasses import dataclass

from sim.plan import LayerSpan, StepPlan
from sim.schedulers.admission import fill_budget
from sim.schedulers.room import make_room
from sim.view import EngineLimits, SchedulerView


@dataclass(frozen=True, slots=True)
class ChunkedPrefill:
    """Sarathi-Serve (arXiv 2403.02310) as vLLM V1 and the layered-prefill code run it.

    Every decoding request takes one token of ``max_num_batched_tokens``; the rest goes
    to the prompt in progress, then to waiting prompts, first come first served.
    """

    limits: EngineLimits
    steady: bool = True
    stall_free: bool = True
    work_conserving: bool = True

    def plan(self, view: SchedulerView) -> StepPlan:
        """One span over all layers with a mixed batch."""
        room = make_room(view, self.limits)
        budget = self.limits.max_num_batched_tokens - room.num_decoding
        chunks = fill_budget(view, room, self.limits, budget)
        span = LayerSpan(0, self.limits.num_layers, chunks)
        return StepPlan((span,), room.preempted)

    def reject_reason(self, prompt_tokens: int) -> str | None:
        """Any prompt can be cut to the budget."""
        return None
