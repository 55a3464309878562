"""One model replica as a process: plan, price, wait, emit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sim.engine import Engine
from sim.events import (
    IterationsEnded,
    IterationStarted,
    Observer,
    Stalled,
    engine_state,
)
from sim.handover import Handover
from sim.iteration_log import IterationLog
from sim.plan import StepPlan
from sim.request import RequestRecord
from sim.shell.clock import Clock, Interrupt, Kind, Moment, Process
from sim.step import ClockedPricer, DecodePricer, Int64, StepCost, StepPricer

_FEWEST: Final = 8
"""Iterations in a row from which one vector is cheaper than one price each."""
_MOST: Final = 4096
"""Iterations in one vector; an arrival throws away those after it."""


@dataclass(slots=True)
class _Run:
    """Iterations under way that only decode.

    Attributes:
        ends: End of each (ns), increasing.
        steps: How many of them will happen.
    """

    ends: Int64
    steps: int


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where a replica's requests go on to.

    Attributes:
        finished: With their last token.
        prefilled: To be decoded elsewhere.
        pulled: Taken by the replica with this index, their KV cache to be sent.
    """

    finished: Callable[[RequestRecord], None]
    prefilled: Callable[[Handover], None]
    pulled: Callable[[Handover, int], None]


class Replica:
    """Runs an engine: back-to-back iterations while there is work.

    Iterations that only decode are priced many at a time, up to the next completion or
    block shortage; a request that arrives meanwhile ends such a run with the iteration
    under way. Nothing differs from one iteration at a time but the speed.

    Attributes:
        engine: Queues and KV blocks.
        log: Iterations so far.
        observer: Is told of every iteration, or None.
    """

    def __init__(
        self,
        clock: Clock,
        engine: Engine,
        pricer: StepPricer,
        outlets: Outlets,
        *,
        index: int = 0,
        fast_forward: bool = True,
        detailed: bool = True,
    ) -> None:
        self._clock = clock
        self._pricer = pricer
        self._outlets = outlets
        self._index = index
        # Asked once: an isinstance of a protocol is too slow for every iteration.
        self._clocked = pricer if isinstance(pricer, ClockedPricer) else None
        self._decode_pricer: DecodePricer | None = None
        if fast_forward and isinstance(pricer, DecodePricer):
            self._decode_pricer = pricer
        self._idle: Moment | None = None
        self._decodes: _Run | None = None
        self.engine = engine
        self.log = IterationLog(detailed=detailed)
        self.observer: Observer | None = None
        self._process = clock.process(self._run())

    def submit(self, record: RequestRecord) -> None:
        """Receive a request now."""
        self.engine.submit(record)
        if record.rejected is None:
            self._notice()

    def offer(self, handover: Handover) -> None:
        """Learn of a prefilled request that this replica is to decode."""
        self.engine.offered.append(handover)
        self._notice()

    def receive(self, request_id: int) -> None:
        """Have the KV cache of an incoming request from now on."""
        self.engine.receive(request_id)
        self._notice()

    def release(self, request_id: int) -> None:
        """Give up the KV cache of a parked request, which has moved."""
        self.engine.release(request_id)
        self._notice()

    def _notice(self) -> None:
        """Plan anew: at once if idle, else after the iteration under way."""
        if self._idle is not None and self.engine.has_work:
            idle, self._idle = self._idle, None
            idle.succeed()
        elif self._decodes is not None:
            self._cut(self._decodes)

    def _cut(self, run: _Run) -> None:
        """Let the iteration under way be the last of its run."""
        steps = int(run.ends[: run.steps].searchsorted(self._clock.now_ns)) + 1
        if steps < run.steps:
            run.steps = steps
            self._process.interrupt()

    def _run(self) -> Process:
        clock, engine = self._clock, self.engine
        while True:
            if not engine.has_work:
                yield self._wait()
            if clock.busy_now:
                yield clock.after(0, Kind.PLAN, self._index)
            while (handover := engine.pull()) is not None:
                self._outlets.pulled(handover, self._index)
            plan = engine.plan()
            if plan is None:
                yield from self._stall()
                continue
            pricer = self._decode_pricer
            steps = engine.repeats(plan) if pricer is not None else 1
            if pricer is not None and steps >= _FEWEST:
                yield from self._run_decodes(plan, pricer, min(steps, _MOST))
            else:
                yield from self._run_one(plan)

    def _wait(self) -> Moment:
        self._idle = self._clock.event()
        return self._idle

    def _stall(self) -> Process:
        if self.observer is not None:
            state = engine_state(self.engine)
            self.observer.on(Stalled(self._clock.now_ns, self._index, state))
        yield self._wait()

    def _run_one(self, plan: StepPlan) -> Process:
        engine, start_ns = self.engine, self._clock.now_ns
        engine.begin(plan, start_ns)
        decoding = engine.decoding.size
        context = engine.decoding.stored_tokens + decoding
        if self._clocked is not None:
            self._clocked.begin(start_ns)
        cost = self._pricer.price(plan, decoding, context)
        self.log.append(start_ns, plan, cost, engine)
        if self.observer is not None:
            self._tell_started(self.observer, start_ns, plan)
        yield self._clock.after(cost.duration_ns, Kind.ITERATION_END, self._index)
        end_ns = self._clock.now_ns
        finished = engine.finish(plan, end_ns)
        if self.observer is not None:
            self._tell_ended(self.observer, (end_ns,), cost, finished)
        for record in finished:
            self._outlets.finished(record)
        if engine.hands_over:
            self._hand_over(plan)

    def _hand_over(self, plan: StepPlan) -> None:
        """Offer those whose prefill this iteration completed."""
        for chunk in plan.spans[-1].prefill:
            if chunk.request_id in self.engine.parked:
                handover = self.engine.parked_handover(chunk.request_id, self._index)
                self._outlets.prefilled(handover)

    def _run_decodes(self, plan: StepPlan, pricer: DecodePricer, steps: int) -> Process:
        engine, start_ns = self.engine, self._clock.now_ns
        engine.begin(plan, start_ns)
        decoding, waiting = engine.decoding.size, len(engine.waiting)
        context = engine.decoding.stored_tokens + decoding
        costs = pricer.price_decodes(decoding, context, steps)
        ends = start_ns + np.add.accumulate(costs.duration_ns)
        run = self._decodes = _Run(ends, steps)
        if self.observer is not None:
            self._tell_started(self.observer, start_ns, plan)
        yield from self._wait_for(run)
        self._decodes = None
        ends = run.ends[: run.steps]
        self.log.append_decodes(start_ns, ends, costs, waiting, engine)
        finished = engine.finish_decodes(run.steps, int(ends[-1]))
        if self.observer is not None:
            cost = costs.total(run.steps)
            self._tell_ended(self.observer, tuple(ends.tolist()), cost, finished)
        for record in finished:
            self._outlets.finished(record)

    def _tell_started(self, observer: Observer, start_ns: int, plan: StepPlan) -> None:
        state = engine_state(self.engine)
        observer.on(IterationStarted(start_ns, self._index, plan, state))

    def _tell_ended(
        self,
        observer: Observer,
        ends_ns: Sequence[int],
        cost: StepCost,
        finished: Sequence[RequestRecord],
    ) -> None:
        ids = tuple(record.request.id for record in finished)
        state = engine_state(self.engine)
        observer.on(
            IterationsEnded(ends_ns[-1], self._index, ends_ns, cost, ids, state)
        )

    def _wait_for(self, run: _Run) -> Process:
        """Until the end of the run, which an arrival may bring closer."""
        while True:
            delay_ns = int(run.ends[run.steps - 1]) - self._clock.now_ns
            try:
                yield self._clock.after(delay_ns, Kind.ITERATION_END, self._index)
            except Interrupt:
                continue
            return
