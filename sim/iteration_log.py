"""Columns that grow by one row per iteration of a replica."""

from __future__ import annotations

from array import array
from typing import Final

import numpy as np

from sim.engine import Engine
from sim.plan import StepPlan
from sim.span_log import SpanLog
from sim.step import NUM_COUNTS, NUM_JOULES, DecodeCosts, Float64, Int64, StepCost

_FOLD: Final = 1024  # iterations whose costs are kept before they are summed


class IterationLog:
    """Iterations of one replica, and their sums.

    Args:
        detailed: Keep a row per iteration; without, all columns but ``decode_end_ns``
            stay empty.

    Attributes:
        detailed: Whether there is a row per iteration.
        last_end_ns: End of the last iteration, 0 before there is one.
        start_ns: Start of each iteration.
        end_ns: End of each iteration.
        decode_end_ns: End of each iteration that decoded; token times slice it.
        running: Requests that decode or prefill in it.
        waiting: Requests left waiting.
        used_blocks: KV blocks held in it.
        prefill_layer_tokens: Prompt tokens times layers computed.
        decode_tokens: Decode rows.
        energy_j: Energy of each iteration.
        decoding: Requests that decode, also where this iteration does not run them.
        chunks: Prompt chunks and the layers they ran in.
    """

    def __init__(self, *, detailed: bool = True) -> None:
        self.last_end_ns = 0
        self.detailed = detailed
        self._length = 0
        self.start_ns = array("q")
        self.end_ns = array("q")
        self.decode_end_ns = array("q")
        self.running = array("q")
        self.waiting = array("q")
        self.used_blocks = array("q")
        self.prefill_layer_tokens = array("q")
        self.decode_tokens = array("q")
        self.energy_j = array("d")
        self.decoding = array("q")
        self.chunks = SpanLog()
        self._counts = array("q")
        self._joules = array("d")
        self._count_sums = [0] * NUM_COUNTS
        self._joule_sums = np.zeros(NUM_JOULES)

    def __len__(self) -> int:
        """Iterations so far."""
        return self._length

    @property
    def totals(self) -> dict[str, float]:
        """Sums of the :class:`~sim.step.StepCost` fields."""
        self._fold()
        sums = (*self._count_sums, *self._joule_sums.tolist())
        return dict(zip(StepCost._fields, sums, strict=True))

    def append(
        self, start_ns: int, plan: StepPlan, cost: StepCost, engine: Engine
    ) -> None:
        """Record an iteration that has begun; its end follows from its cost."""
        end_ns = start_ns + cost.duration_ns
        if plan.spans[0].decode and engine.decoding.size:
            self.decode_end_ns.append(end_ns)
        if self.detailed:
            self._append_row(start_ns, plan, cost, engine)
        self._length += 1
        self.last_end_ns = end_ns
        self._counts.extend(cost[:NUM_COUNTS])  # type: ignore[arg-type]
        self._joules.extend(cost[NUM_COUNTS:])
        if len(self._joules) >= _FOLD * NUM_JOULES:
            self._fold()

    def _append_row(
        self, start_ns: int, plan: StepPlan, cost: StepCost, engine: Engine
    ) -> None:
        decoding = engine.decoding.size
        self.start_ns.append(start_ns)
        self.end_ns.append(start_ns + cost.duration_ns)
        self.running.append(decoding + len(engine.prefilling))
        self.waiting.append(len(engine.waiting))
        self.used_blocks.append(engine.num_blocks - engine.free_blocks)
        work = self.chunks.append(self._length, plan)
        self.prefill_layer_tokens.append(work)
        self.decode_tokens.append(decoding if plan.spans[0].decode else 0)
        self.decoding.append(decoding)
        self.energy_j.append(cost.energy_j)

    def append_decodes(
        self,
        start_ns: int,
        ends: Int64,
        costs: DecodeCosts,
        waiting: int,
        engine: Engine,
    ) -> None:
        """Record iterations in a row that decode only, before they finish.

        Args:
            start_ns: Start of the first.
            ends: End of each, shape (steps,).
            costs: Costs of at least as many.
            waiting: Requests left waiting when the first began.
            engine: Otherwise as it was then.
        """
        steps = ends.size
        self.decode_end_ns.frombytes(ends.tobytes())
        joules = costs.energy_j[:steps]
        if self.detailed:
            self._append_rows(start_ns, ends, joules, waiting, engine)
        self._length += steps
        self.last_end_ns = int(ends[-1])
        self._joules.frombytes(joules.tobytes())
        for i, each in enumerate(costs.counts):
            total = each * steps if isinstance(each, int) else _sum(each[:steps])
            self._count_sums[i] += total
        if len(self._joules) >= _FOLD * NUM_JOULES:
            self._fold()

    def _append_rows(
        self,
        start_ns: int,
        ends: Int64,
        joules: Float64,
        waiting: int,
        engine: Engine,
    ) -> None:
        steps, decoding = ends.size, engine.decoding.size
        used = engine.decoding.blocks_taken(steps)
        used += engine.num_blocks - engine.free_blocks - used[0]
        times = ends.tobytes()
        self.start_ns.append(start_ns)
        self.start_ns.frombytes(times[:-8])
        self.end_ns.frombytes(times)
        self.running += array("q", [decoding + len(engine.prefilling)]) * steps
        self.waiting += array("q", [waiting]) * steps
        self.used_blocks.frombytes(used.tobytes())
        self.prefill_layer_tokens += array("q", [0]) * steps
        self.decode_tokens += array("q", [decoding]) * steps
        self.decoding += array("q", [decoding]) * steps
        run, wait, hbm, flop = joules.T
        self.energy_j.frombytes((run + wait + hbm + flop).tobytes())

    def _fold(self) -> None:
        """Add the costs kept to the sums: integers exactly, joules one by one."""
        for i in range(NUM_COUNTS):
            self._count_sums[i] += sum(self._counts[i::NUM_COUNTS])
        joules = np.array(self._joules).reshape(-1, NUM_JOULES)
        in_order = np.vstack((self._joule_sums, joules))
        self._joule_sums = np.add.accumulate(in_order)[-1]
        self._counts, self._joules = array("q"), array("d")


def _sum(values: Int64) -> int:
    return int(np.add.reduce(values))
