"""One model replica as a process: plan, price, wait, emit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from sim.engine import Engine
from sim.events import (
    IterationsCut,
    IterationsEnded,
    IterationsPassed,
    IterationStarted,
    Observer,
    Stalled,
    engine_state,
)
from sim.handover import Handover
from sim.iteration_log import Begun, IterationLog, begun
from sim.plan import StepPlan
from sim.request import RequestRecord
from sim.shell.clock import Clock, Interrupt, Kind, Moment, Process
from sim.step import (
    ClockedPricer,
    DecodeCosts,
    DecodePricer,
    Int64,
    StepCost,
    StepPricer,
)

_FEWEST: Final = 8
"""Iterations in a row from which one vector is cheaper than one price each."""
_MOST: Final = 4096
"""Iterations in one vector; an arrival throws away those after it."""


class _Step(NamedTuple):
    """One iteration under way."""

    begun: Begun
    cost: StepCost


@dataclass(slots=True)
class _Run:
    """Iterations under way that only decode.

    Attributes:
        plan: Of each.
        begun: The engine when the first of them began.
        costs: Of each.
        ends: End of each (ns), increasing.
        cycle: KV blocks they take, see :class:`~sim.log_stretch.DecodeStretch`.
        steps: How many of them will happen.
        passed: How many the engine knows to have ended; the next one has begun.
    """

    plan: StepPlan
    begun: Begun
    costs: DecodeCosts
    ends: Int64
    cycle: Sequence[int]
    steps: int
    passed: int = 0


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where a replica's requests go on to.

    Attributes:
        ending: An iteration of the replica with this index ends, as will be told.
        finished: With their last token.
        prefilled: To be decoded elsewhere.
        pulled: Taken by the replica with this index, their KV cache to be sent.
    """

    ending: Callable[[int], None]
    finished: Callable[[RequestRecord], None]
    prefilled: Callable[[Handover], object]
    pulled: Callable[[Handover, int], None]


class Replica:
    """Runs an engine: back-to-back iterations while there is work.

    Iterations that only decode are priced many at a time, up to the next completion or
    block shortage; a request that arrives meanwhile ends such a run with the iteration
    under way. Who looks at the engine in between finds it in that iteration: nothing
    differs from one iteration at a time but the speed.

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
        index: int,
        detailed: bool,
        fast_forward: bool = True,
    ) -> None:
        self._clock = clock
        self._price = pricer.price
        self._outlets = outlets
        self._index = index
        # Asked once: an isinstance of a protocol is too slow for every iteration.
        self._clocked = pricer if isinstance(pricer, ClockedPricer) else None
        self._decode_pricer: DecodePricer | None = None
        if fast_forward and isinstance(pricer, DecodePricer):
            self._decode_pricer = pricer
        self._idle: Moment | None = None
        self._step: _Step | None = None
        self._decodes: _Run | None = None
        self.engine = engine
        self.log = IterationLog(detailed=detailed)
        self.observer: Observer | None = None
        self._process = clock.process(self._run())

    def submit(self, record: RequestRecord) -> None:
        """Receive a request now."""
        self._catch_up()
        self.engine.submit(record)
        if record.rejected is None:
            self._notice()

    def offer(self, handover: Handover) -> None:
        """Learn of a prefilled request that this replica is to decode."""
        self._catch_up()
        self.engine.intake.offered.append(handover)
        self._notice()

    def receive(self, handover: Handover) -> None:
        """Have the KV cache of an incoming request from now on."""
        self._catch_up()
        self.engine.intake.arrive(handover)
        self._notice()

    def withdraw(self, request_id: int) -> None:
        """Forget a request that was to come: its prefill has finished it."""
        self._catch_up()
        self.engine.withdraw(request_id)
        self._notice()

    def release(self, request_id: int) -> None:
        """Give up the KV cache of a parked request, which has moved."""
        self._catch_up()
        self.engine.release(request_id)
        self._notice()

    def reset(self) -> list[RequestRecord]:
        """Fail, or start anew: lose all that is here, the iteration under way too.

        Call :meth:`settle` before.

        Returns:
            The requests that were here, as they came.
        """
        if self._step is not None:
            self._cut_off(self._step)
        elif self._decodes is not None:
            self._cut_off_run(self._decodes)
        return self.engine.reset()

    def _cut_off_run(self, run: _Run) -> None:
        """Log what has ended of a run, then part of the iteration under way."""
        self._catch_up()
        whole, first = run.passed, run.begun
        if not whole:
            self._cut_off(_Step(first, run.costs.at(0)))
            return
        ends = run.ends[:whole]
        self.log.append_decodes(first, ends, run.costs, run.cycle)
        # Whoever has come since this iteration began was not waiting then.
        at_start = begun(int(ends[-1]), self.engine)._replace(waiting=first.waiting)
        step = _Step(at_start, run.costs.at(whole))
        self._cut_off(step, run.costs.total(whole))

    def _cut_off(self, step: _Step, *before: StepCost) -> None:
        """Log part of an iteration, and tell of it with the cost of those before it."""
        now_ns = self._clock.now_ns
        part = step.cost.part(now_ns - step.begun.start_ns)
        self.log.append_lost(step.begun, part)
        self._step = self._decodes = None
        self._process.interrupt()
        if self.observer is not None:
            cost = StepCost(*map(sum, zip(*before, part, strict=True)))
            self.observer.on(IterationsCut(now_ns, self._index, cost))

    def settle(self) -> None:
        """End a run whose iteration ends at this very time, before others act on it.

        Step by step that end would be an event of its own, before what is to come.
        """
        run, now_ns = self._decodes, self._clock.now_ns
        if run is None:
            return
        before = int(run.ends[: run.steps].searchsorted(now_ns))
        if run.ends[before] == now_ns and before + 1 < run.steps:
            run.steps = before + 1
            self._end_run(run)
            self._process.interrupt()

    def _catch_up(self) -> None:
        """Have the engine in the iteration under way, before anybody looks at it."""
        run = self._decodes
        if run is None:
            return
        ended = int(run.ends[: run.steps].searchsorted(self._clock.now_ns))
        if ended == run.passed:
            return
        ends = run.ends[run.passed : ended].tolist()
        self.engine.finish_decodes(len(ends), ends[-1])
        self.engine.begin(run.plan, ends[-1])
        run.passed = ended
        if self.observer is not None:
            at = (self._clock.now_ns, self._index)
            self.observer.on(IterationsPassed(*at, tuple(ends)))

    def _notice(self) -> None:
        """Plan anew: at once if idle, else after the iteration under way."""
        if self._idle is not None and self.engine.has_work:
            idle, self._idle = self._idle, None
            idle.succeed()
        elif self._decodes is not None:
            self._cut(self._decodes)

    def _cut(self, run: _Run) -> None:
        """Let the iteration under way be the last of its run."""
        if run.passed + 1 < run.steps:
            run.steps = run.passed + 1
            self._process.interrupt()

    def _run(self) -> Process:
        clock, engine = self._clock, self.engine
        while True:
            if not engine.has_work:
                yield self._wait()
            if clock.busy_now:
                yield clock.after(0, Kind.PLAN, self._index)
            if not engine.has_work:  # lost meanwhile
                continue
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
        cost = self._price(plan, decoding, context)
        step = self._step = _Step(begun(start_ns, engine), cost)
        if self.observer is not None:
            self._tell_started(self.observer, start_ns, plan)
        try:
            yield self._clock.after(cost.duration_ns, Kind.ITERATION_END, self._index)
        except Interrupt:
            return
        self._step = None
        self.log.append(step.begun, plan, cost)
        end_ns = self._clock.now_ns
        finished = engine.finish(plan, end_ns)
        if finished or self.observer is not None:
            self._outlets.ending(self._index)
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
                handover = self.engine.handover(chunk.request_id, self._index)
                self._outlets.prefilled(handover)

    def _run_decodes(self, plan: StepPlan, pricer: DecodePricer, steps: int) -> Process:
        engine, start_ns = self.engine, self._clock.now_ns
        engine.begin(plan, start_ns)
        decoding, first = engine.decoding.size, begun(start_ns, engine)
        context = engine.decoding.stored_tokens + decoding
        costs = pricer.price_decodes(decoding, context, steps)
        ends = start_ns + np.add.accumulate(costs.duration_ns)
        cycle = engine.decoding.cycle()
        run = self._decodes = _Run(plan, first, costs, ends, cycle, steps)
        if self.observer is not None:
            self._tell_started(self.observer, start_ns, plan)
        yield from self._wait_for(run)
        if self._decodes is run:
            self._end_run(run)

    def _end_run(self, run: _Run) -> None:
        self._decodes = None
        ends, passed = run.ends[: run.steps], run.passed
        self.log.append_decodes(run.begun, ends, run.costs, run.cycle)
        finished = self.engine.finish_decodes(run.steps - passed, int(ends[-1]))
        if finished or self.observer is not None:
            self._outlets.ending(self._index)
        if self.observer is not None:
            cost = run.costs.total(run.steps)
            ends_ns = tuple(ends[passed:].tolist())
            self._tell_ended(self.observer, ends_ns, cost, finished)
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
        """Until the end of the run, which an arrival may bring closer, or its loss."""
        while self._decodes is run:
            delay_ns = int(run.ends[run.steps - 1]) - self._clock.now_ns
            try:
                yield self._clock.after(delay_ns, Kind.ITERATION_END, self._index)
            except Interrupt:
                continue
            return
