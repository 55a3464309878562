"""Clients, router and replicas: a workload from first arrival to last token."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from simpy import Environment, Event

from sim.engine import Engine
from sim.iteration_log import IterationLog
from sim.request import Request, RequestRecord
from sim.routers import Router
from sim.shell.events import Kind, after, now_ns
from sim.shell.replica import Replica
from sim.step import StepPricer


@dataclass(frozen=True, slots=True)
class ClusterRun:
    """Everything a finished run left behind.

    Attributes:
        records: One per request, in workload order.
        logs: One per replica.
    """

    records: tuple[RequestRecord, ...]
    logs: tuple[IterationLog, ...]


class Cluster:
    """A client that sends requests, open or closed loop, to replicas behind a router.

    A request reaches its engine's queue ``frontend_ns`` after it was sent; its TTFT
    counts from when it was sent.

    With ``max_concurrency`` a request that arrives while that many are in progress
    waits at the client and is sent when one finishes; its TTFT counts from then, as
    in ``vllm bench serve``. Without ``fast_forward`` every iteration is planned and
    priced on its own, which changes nothing but the time it takes.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        pricer: StepPricer,
        router: Router,
        max_concurrency: int | None = None,
        frontend_ns: int = 0,
        *,
        fast_forward: bool = True,
    ) -> None:
        self._env = Environment()
        self._router = router
        self._slots = max_concurrency
        self._frontend_ns = frontend_ns
        self._outstanding = [0] * len(engines)
        self._held: deque[RequestRecord] = deque()
        self._on_done: Callable[[], None] = lambda: None
        self._replicas = [
            Replica(
                self._env,
                engine,
                pricer,
                self._finished,
                index=index,
                fast_forward=fast_forward,
            )
            for index, engine in enumerate(engines)
        ]

    def run(
        self, requests: Sequence[Request], on_done: Callable[[], None] | None = None
    ) -> ClusterRun:
        """Serve every request; ``on_done`` is called as each leaves.

        Raises:
            SimulationError: If a scheduler breaks an invariant.
        """
        if on_done is not None:
            self._on_done = on_done
        records = tuple(
            RequestRecord(request=request, arrival_ns=request.arrival_ns, runs=[])
            for request in requests
        )
        self._env.process(self._arrivals(records))
        self._env.run()
        return ClusterRun(records, tuple(r.log for r in self._replicas))

    def _arrivals(
        self, records: Sequence[RequestRecord]
    ) -> Generator[Event, None, None]:
        for record in records:
            delay = record.request.arrival_ns - now_ns(self._env)
            yield after(self._env, delay, Kind.ARRIVAL)
            self._held.append(record)
            self._send()

    def _send(self) -> None:
        while self._held and (self._slots is None or self._slots > 0):
            record = self._held.popleft()
            record.arrival_ns = now_ns(self._env)
            record.replica = self._router.route(self._outstanding)
            self._outstanding[record.replica] += 1
            if self._slots is not None:
                self._slots -= 1
            if self._frontend_ns:
                self._env.process(self._deliver_later(record))
            else:
                self._deliver(record)

    def _deliver_later(self, record: RequestRecord) -> Generator[Event, None, None]:
        yield after(self._env, self._frontend_ns, Kind.ARRIVAL)
        self._deliver(record)
        self._send()

    def _deliver(self, record: RequestRecord) -> None:
        self._replicas[record.replica].submit(record)
        if record.rejected is not None:
            self._leave(record)
            record.replica = -1

    def _finished(self, record: RequestRecord) -> None:
        self._leave(record)
        self._send()

    def _leave(self, record: RequestRecord) -> None:
        self._outstanding[record.replica] -= 1
        self._on_done()
        if self._slots is not None:
            self._slots += 1
