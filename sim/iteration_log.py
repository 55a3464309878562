"""Columns that grow by one row per iteration of a replica."""

from __future__ import annotations

from array import array

from sim.engine import Engine
from sim.plan import StepPlan
from sim.step import StepCost


class IterationLog:
    """Iterations of one replica, and their sums.

    Attributes:
        start_ns: Start of each iteration.
        end_ns: End of each iteration.
        decode_end_ns: End of each iteration that decoded; token times slice it.
        running: Requests that decode or prefill in it.
        waiting: Requests left waiting.
        used_blocks: KV blocks held in it.
        prefill_layer_tokens: Prompt tokens times layers computed.
        decode_tokens: Decode rows.
        energy_j: Energy of each iteration.
        totals: Sums of the :class:`~sim.step.StepCost` fields.
    """

    def __init__(self) -> None:
        self.start_ns = array("q")
        self.end_ns = array("q")
        self.decode_end_ns = array("q")
        self.running = array("q")
        self.waiting = array("q")
        self.used_blocks = array("q")
        self.prefill_layer_tokens = array("q")
        self.decode_tokens = array("q")
        self.energy_j = array("d")
        self.totals: dict[str, float] = dict.fromkeys(StepCost.__slots__, 0)

    def __len__(self) -> int:
        """Iterations recorded."""
        return len(self.end_ns)

    def append(
        self, start_ns: int, plan: StepPlan, cost: StepCost, engine: Engine
    ) -> None:
        """Record an iteration that has begun; its end follows from its cost."""
        decoding = engine.decoding.size
        end_ns = start_ns + cost.duration_ns
        self.start_ns.append(start_ns)
        self.end_ns.append(end_ns)
        if decoding and plan.spans[0].decode:
            self.decode_end_ns.append(end_ns)
        self.running.append(decoding + len(engine.prefilling))
        self.waiting.append(len(engine.waiting))
        self.used_blocks.append(engine.num_blocks - engine.free_blocks)
        self.prefill_layer_tokens.append(
            sum(s.layers * sum(c.tokens for c in s.prefill) for s in plan.spans)
        )
        self.decode_tokens.append(decoding)
        self.energy_j.append(cost.energy_j)
        totals = self.totals
        for name in totals:
            totals[name] += getattr(cost, name)
