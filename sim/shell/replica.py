"""One model replica as a SimPy process: plan, price, wait, emit."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

import numpy as np
from simpy import Environment, Event, Interrupt

from sim.engine import Engine
from sim.iteration_log import IterationLog
from sim.plan import StepPlan
from sim.request import RequestRecord
from sim.shell.events import Kind, after, now_ns
from sim.step import DecodePricer, Int64, StepPricer

_FEWEST: Final = 6
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


class Replica:
    """Runs an engine: back-to-back iterations while there is work.

    Iterations that only decode are priced many at a time, up to the next completion or
    block shortage; a request that arrives meanwhile ends such a run with the iteration
    under way. Nothing differs from one iteration at a time but the speed.

    Attributes:
        engine: Queues and KV blocks.
        log: Iterations so far.
    """

    def __init__(
        self,
        env: Environment,
        engine: Engine,
        pricer: StepPricer,
        on_finish: Callable[[RequestRecord], None],
        *,
        index: int = 0,
        fast_forward: bool = True,
    ) -> None:
        self._env = env
        self._pricer = pricer
        self._on_finish = on_finish
        self._index = index
        self._decode_pricer: DecodePricer | None = None
        if fast_forward and isinstance(pricer, DecodePricer):
            self._decode_pricer = pricer
        self._idle: Event | None = None
        self._decodes: _Run | None = None
        self.engine = engine
        self.log = IterationLog()
        self._process = env.process(self._run())

    def submit(self, record: RequestRecord) -> None:
        """Receive a request now."""
        self.engine.submit(record)
        if self._idle is not None and self.engine.has_work:
            idle, self._idle = self._idle, None
            idle.succeed()
        elif self._decodes is not None:
            self._cut(self._decodes)

    def _cut(self, run: _Run) -> None:
        """Let the iteration under way be the last of its run."""
        steps = int(run.ends[: run.steps].searchsorted(now_ns(self._env))) + 1
        if steps < run.steps:
            run.steps = steps
            self._process.interrupt()

    def _run(self) -> Generator[Event, None, None]:
        env, engine = self._env, self.engine
        while True:
            if not engine.has_work:
                self._idle = env.event()
                yield self._idle
            if env.peek() <= env.now:  # something else happens first
                yield after(env, 0, Kind.PLAN, self._index)
            plan = engine.plan()
            pricer = self._decode_pricer
            steps = engine.repeats(plan) if pricer is not None else 1
            if pricer is not None and steps >= _FEWEST:
                yield from self._run_decodes(plan, pricer, min(steps, _MOST))
            else:
                yield from self._run_one(plan)

    def _run_one(self, plan: StepPlan) -> Generator[Event, None, None]:
        engine, start_ns = self.engine, now_ns(self._env)
        engine.begin(plan, start_ns)
        decoding = engine.decoding.size
        context = engine.decoding.stored_tokens + decoding
        cost = self._pricer.price(plan, decoding, context)
        self.log.append(start_ns, plan, cost, engine)
        yield after(self._env, cost.duration_ns, Kind.ITERATION_END, self._index)
        for record in engine.finish(plan, now_ns(self._env)):
            self._on_finish(record)

    def _run_decodes(
        self, plan: StepPlan, pricer: DecodePricer, steps: int
    ) -> Generator[Event, None, None]:
        engine, start_ns = self.engine, now_ns(self._env)
        engine.begin(plan, start_ns)
        decoding, waiting = engine.decoding.size, len(engine.waiting)
        context = engine.decoding.stored_tokens + decoding
        costs = pricer.price_decodes(decoding, context, steps)
        run = self._decodes = _Run(start_ns + np.cumsum(costs.duration_ns), steps)
        yield from self._wait_for(run)
        self._decodes = None
        ends = run.ends[: run.steps]
        self.log.append_decodes(start_ns, ends, costs, waiting, engine)
        for record in engine.finish_decodes(run.steps, int(ends[-1])):
            self._on_finish(record)

    def _wait_for(self, run: _Run) -> Generator[Event, None, None]:
        """Until the end of the run, which an arrival may bring closer."""
        while True:
            delay_ns = int(run.ends[run.steps - 1]) - now_ns(self._env)
            try:
                yield after(self._env, delay_ns, Kind.ITERATION_END, self._index)
            except Interrupt:
                continue
            return
