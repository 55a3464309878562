"""One model replica as a SimPy process: plan, price, wait, emit."""

from __future__ import annotations

from collections.abc import Callable, Generator

from simpy import Environment, Event

from sim.engine import Engine
from sim.iteration_log import IterationLog
from sim.request import RequestRecord
from sim.shell.events import Kind, after, now_ns
from sim.step import StepPricer


class Replica:
    """Runs an engine: back-to-back iterations while there is work.

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
    ) -> None:
        self._env = env
        self._pricer = pricer
        self._on_finish = on_finish
        self._idle: Event | None = None
        self.engine = engine
        self.log = IterationLog()
        env.process(self._run())

    def submit(self, record: RequestRecord) -> None:
        """Receive a request now."""
        self.engine.submit(record)
        if self._idle is not None and self.engine.has_work:
            idle, self._idle = self._idle, None
            idle.succeed()

    def _run(self) -> Generator[Event, None, None]:
        env, engine = self._env, self.engine
        while True:
            if not engine.has_work:
                self._idle = env.event()
                yield self._idle
            yield after(env, 0, Kind.PLAN)
            plan = engine.plan()
            start_ns = now_ns(env)
            engine.begin(plan, start_ns)
            decoding = engine.decoding.size
            context = engine.decoding.stored_tokens + decoding
            cost = self._pricer.price(plan, decoding, context)
            self.log.append(start_ns, plan, cost, engine)
            yield after(env, cost.duration_ns, Kind.ITERATION_END)
            for record in engine.finish(plan, now_ns(env)):
                self._on_finish(record)
