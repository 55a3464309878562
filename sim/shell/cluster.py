"""Clients, router and replicas: a workload from first arrival to last token."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from sim.engine import Engine
from sim.errors import ConfigError, SimulationError
from sim.events import (
    Arrived,
    Event,
    Observer,
    Queued,
    Rejected,
    Retried,
    RunEnded,
    RunStarted,
    Sent,
    Stranded,
    engine_state,
    replica_setup,
)
from sim.handover import Disaggregation, Handover
from sim.iteration_log import IterationLog
from sim.kv_stream import LAYER_WISE, StreamLog
from sim.outages import FleetLog, Outages
from sim.record_table import RecordTable
from sim.request import Request, RequestRecord, sessions
from sim.routers import Router
from sim.scaling import Scaling
from sim.shell.clock import Clock, Kind, Process
from sim.shell.fleet import Fleet, FleetOutlets
from sim.shell.heap import no_full_collections
from sim.shell.kv_streams import KvStreams, StreamOutlets
from sim.shell.pool import Pool
from sim.shell.prefill_replica import PrefillReplica
from sim.shell.replica import Outlets, Replica
from sim.shell.scaler import Scaler
from sim.shell.transfers import Transfers
from sim.shell.watch import Watch
from sim.step import StepPricer
from sim.swapping import SwapLog, SwappingEngine
from sim.transfer_events import (
    Offered,
    TransferEnded,
    TransferStarted,
)


@dataclass(frozen=True, slots=True)
class ClusterRun:
    """Everything a finished run left behind.

    Attributes:
        records: One per request, in workload order.
        logs: One per replica.
        fleet: What became of the replicas.
        streams: What KV caches did that moved while they were computed; None if none
            could.
        swaps: Copies of KV blocks to and from the host, one log per replica; empty
            where preemption recomputes.
    """

    records: Sequence[RequestRecord]
    logs: tuple[IterationLog, ...]
    fleet: FleetLog = field(default_factory=FleetLog)
    streams: StreamLog | None = None
    swaps: tuple[SwapLog, ...] = ()


@dataclass(frozen=True, slots=True)
class Disaggregated:
    """Pools for prefill and decode, and the router of the second."""

    pools: Disaggregation
    router: Router


class Cluster:
    """A client that sends requests, open or closed loop, to replicas behind a router.

    A request reaches its engine's queue ``frontend_ns`` after it was sent; its TTFT
    counts from when it was sent.

    With ``max_concurrency`` a request that arrives while that many are in progress
    waits at the client and is sent when one finishes; its TTFT counts from then, as
    in ``vllm bench serve``. Without ``fast_forward`` every iteration is planned and
    priced on its own, which changes nothing but the time it takes. Without
    ``detailed`` the logs keep no row per iteration. With ``split``, ``router`` is that
    of the prefill pool.

    Replicas share one pricer, or have one each where pricing has a state.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        pricer: StepPricer | Sequence[StepPricer],
        router: Router,
        max_concurrency: int | None = None,
        frontend_ns: int = 0,
        *,
        fast_forward: bool = True,
        detailed: bool = True,
        split: Disaggregated | None = None,
    ) -> None:
        self._clock = Clock()
        self._slots = max_concurrency
        self._frontend_ns = frontend_ns
        count, self._split = len(engines), split
        first = count if split is None else split.pools.prefill
        self._pool = Pool(router, range(first))
        self._streams: KvStreams | None = None
        if split is not None:
            self._decoders = Pool(split.router, range(first, count))
            self._transfers = Transfers(self._clock, split.pools.links, count)
        self._held: deque[RequestRecord] = deque()
        self._stranded: deque[RequestRecord] = deque()  # sent, on no replica
        self._lost: list[RequestRecord] = []
        self._to_come = 0
        self._turns: dict[int, deque[Request]] = {}  # to come, by the one under way
        self._records = RecordTable(())
        self._on_done: Callable[[], None] = lambda: None
        pricers = pricer if isinstance(pricer, Sequence) else [pricer] * len(engines)
        self._replicas: list[Replica] = []
        outlets = Outlets(self._ending, self._finished, self._prefilled, self._pulled)
        if split is not None and split.pools.streams:
            self._streams = streams = self._make_streams()
            outlets = Outlets(
                self._ending, streams.finished, streams.completed, streams.pulled
            )
        for index, (engine, own) in enumerate(zip(engines, pricers, strict=True)):
            make: Callable[..., Replica] = partial(Replica, fast_forward=fast_forward)
            if self._streams is not None and engine.hands_over:
                wise = split is not None and split.pools.kv_transfer == LAYER_WISE
                make = partial(PrefillReplica, streams=self._streams, layer_wise=wise)
            at = (self._clock, engine, own, outlets)
            self._replicas.append(make(*at, index=index, detailed=detailed))
        self._fleet: Fleet | None = None
        self._scaler: Scaler | None = None
        self._observer: Observer | None = None

    def _make_streams(self) -> KvStreams:
        outlets = StreamOutlets(
            self._prefilled, self._arrived, self._finished, self._tell
        )
        at = (self._clock, self._transfers, self._replicas, self._decoders)
        return KvStreams(*at, outlets)

    def suffer(self, outages: Outages) -> None:
        """Let replicas fail and be drained in the run to come; not with ``split``.

        A request on a replica that fails is sent again to another one; like any other
        it waits at the client until a replica takes requests. Latencies count from
        when it was first sent, or would have been.
        """
        if outages:
            self._fleet = self._make_fleet()
            self._fleet.suffer(outages)

    def scale(self, scaling: Scaling) -> None:
        """Let an autoscaler start and drain replicas; not with outages or ``split``."""
        self._fleet = self._make_fleet()
        self._scaler = Scaler(self._clock, self._fleet, scaling)

    def _make_fleet(self) -> Fleet:
        hooks = FleetOutlets(self._take_back, self._send)
        return Fleet(self._clock, self._replicas, self._pool, hooks)

    def run(
        self,
        requests: Sequence[Request],
        on_done: Callable[[], None] | None = None,
        observer: Observer | None = None,
    ) -> ClusterRun:
        """Serve every request.

        Args:
            requests: The workload.
            on_done: Called as each request finishes or is rejected.
            observer: Is told every event; changes nothing.

        Raises:
            ConfigError: If time would leave the range of 64-bit nanoseconds.
            SimulationError: If a scheduler breaks an invariant.
        """
        if on_done is not None:
            self._on_done = on_done
        records = self._records = RecordTable(requests)
        logs = tuple(replica.log for replica in self._replicas)
        watch = None if observer is None else Watch(observer)
        self._observe(watch, requests)
        self._clock.process(self._arrivals(requests))
        try:
            with no_full_collections():
                self._run_clock(len(requests))
            if watch is not None:
                watch.on(RunEnded(watch.time_ns, records, logs))
        except SimulationError as error:
            raise error.at(self._clock.now_ns) from error
        except OverflowError as error:
            raise ConfigError(
                "the run would pass 2**63 ns (292 years) of simulated time: the load"
                " is too large, or the machine is scaled too low"
            ) from error
        streams = None if self._streams is None else self._streams.log
        swaps = self._swap_logs()
        return ClusterRun(records, logs, self._fleet_log(), streams, swaps)

    def _swap_logs(self) -> tuple[SwapLog, ...]:
        engines = [replica.engine for replica in self._replicas]
        swapping = [each for each in engines if isinstance(each, SwappingEngine)]
        return tuple(engine.swaps for engine in swapping)

    def _fleet_log(self) -> FleetLog:
        fleet = self._fleet
        if fleet is None:
            return FleetLog()
        return FleetLog(fleet.off_spans(), self._lost, fleet.starts)

    def _run_clock(self, requests: int) -> None:
        """Until nothing is left to happen, or to happen to requests."""
        if self._fleet is None:
            self._clock.run()
        elif requests:
            self._to_come, self._all_done = requests, self._clock.event()
            if self._scaler is not None:
                self._scaler.begin()
            self._clock.run(until=self._all_done)

    def _observe(self, observer: Observer | None, requests: Sequence[Request]) -> None:
        if observer is None:
            return
        self._observer = observer
        if self._fleet is not None:
            self._fleet.observer = observer
        for replica in self._replicas:
            replica.observer = observer
        setups = tuple(replica_setup(replica.engine) for replica in self._replicas)
        links = None if self._split is None else self._split.pools.links
        at = (self._slots, self._frontend_ns, links, self._streams is not None)
        observer.on(RunStarted(setups, requests, *at))

    def _arrivals(self, requests: Sequence[Request]) -> Process:
        for turns in sessions(requests):
            delay = turns[0].arrival_ns - self._clock.now_ns
            yield self._clock.after(delay, Kind.ARRIVAL)
            self._arrive(turns)

    def _arrive(self, turns: deque[Request]) -> None:
        """Hold the first of some turns; the others follow it."""
        request, now_ns = turns.popleft(), self._clock.now_ns
        if turns:
            self._turns[request.id] = turns
        if self._observer is not None:
            self._observer.on(Arrived(now_ns, request.id))
        record = RequestRecord(request=request, arrival_ns=now_ns, runs=[])
        self._records.open(record)
        self._held.append(record)
        self._send()

    def _think(self, turns: deque[Request]) -> Process:
        """The user reads an answer and writes the next turn."""
        yield self._clock.after(turns[0].think_ns or 0, Kind.ARRIVAL)
        self._arrive(turns)

    def _send(self) -> None:
        while self._stranded and self._pool.is_open:
            self._route(self._stranded.popleft())
        while self._held and (self._slots is None or self._slots > 0):
            record = self._held.popleft()
            record.arrival_ns = self._clock.now_ns
            if self._slots is not None:
                self._slots -= 1
            if self._pool.is_open:
                self._route(record)
            else:
                self._stranded.append(record)
                self._tell(Stranded(record.arrival_ns, record.request.id))

    def _route(self, record: RequestRecord) -> None:
        record.replica = self._pool.enter(record)
        if self._observer is not None:
            at = (record.request.id, record.replica)
            self._observer.on(Sent(self._clock.now_ns, *at))
        if self._frontend_ns:
            self._clock.process(self._deliver_later(record))
        else:
            self._deliver(record)
        if self._scaler is not None:
            self._scaler.see(self._pool.total)

    def _tell(self, event: Event) -> None:
        if self._observer is not None:
            self._observer.on(event)

    def _take_back(self, records: Iterable[RequestRecord]) -> None:
        """Have the client send again what a replica has lost."""
        for record in records:
            self._pool.leave(record.replica, record)
            at = (record.request.id, record.replica)
            self._tell(Retried(self._clock.now_ns, *at))
            self._lost.append(record.start_over())
            self._stranded.append(record)
        self._send()

    def _deliver_later(self, record: RequestRecord) -> Process:
        yield self._clock.after(self._frontend_ns, Kind.ARRIVAL)
        self._deliver(record)
        self._send()

    def _deliver(self, record: RequestRecord) -> None:
        if self._fleet is not None and self._fleet.is_down(record.replica):
            self._take_back([record])
            return
        self._replicas[record.replica].submit(record)
        if self._observer is not None:
            self._tell_delivered(self._observer, record)
        if record.rejected is not None:
            self._leave(record)

    def _tell_delivered(self, observer: Observer, record: RequestRecord) -> None:
        time_ns, at = self._clock.now_ns, (record.request.id, record.replica)
        if record.rejected is not None:
            observer.on(Rejected(time_ns, *at))
        else:
            state = engine_state(self._replicas[record.replica].engine)
            observer.on(Queued(time_ns, *at, state))

    def _ending(self, replica: int) -> None:
        """Let those before a replica end what ends now, if this very time has more.

        Requests may be sent to them, their KV caches move, or they come and go.
        """
        sends = (self._held or self._turns) and not self._frontend_ns
        if sends or self._fleet is not None or self._streams is not None:
            for other in self._replicas[:replica]:
                other.settle()

    def _finished(self, record: RequestRecord) -> None:
        self._leave(record)
        self._send()

    def _leave(self, record: RequestRecord) -> None:
        moved, replica = record.prefill_replica >= 0, record.replica
        (self._decoders if moved else self._pool).leave(replica, record)
        if record.rejected is not None:
            record.replica = -1
        self._records.close(record)
        self._on_done()
        if self._slots is not None:
            self._slots += 1
        turns = self._turns.pop(record.request.id, None)
        if turns is not None:
            self._clock.process(self._think(turns))
        if self._fleet is not None:
            self._count_down(self._fleet, replica)

    def _count_down(self, fleet: Fleet, replica: int) -> None:
        """A request is done; the run is when all are."""
        fleet.left(replica)
        if self._scaler is not None:
            self._scaler.see(self._pool.total)
        self._to_come -= 1
        if not self._to_come:
            self._all_done.succeed()

    def _prefilled(self, handover: Handover) -> int:
        """Offer a request to a decode replica; returns which."""
        target = self._decoders.enter(handover.record)
        if self._observer is not None:
            at = (handover.id, handover.source, target)
            self._observer.on(Offered(self._clock.now_ns, *at))
        self._replicas[target].offer(handover)
        return target

    def _pulled(self, handover: Handover, target: int) -> None:
        """Send the KV cache of a request to the replica that took it."""
        on_arrival = partial(self._arrived, handover, target)
        begin_ns, end_ns = self._transfers.start(handover, target, on_arrival)
        if self._observer is not None:
            state = engine_state(self._replicas[target].engine)
            at = (handover.id, target, handover.source, begin_ns, end_ns)
            now_ns, tokens = self._clock.now_ns, handover.tokens
            self._observer.on(TransferStarted(now_ns, *at, tokens, state))

    def _arrived(self, handover: Handover, target: int) -> None:
        """A KV cache is where it is decoded; its source forgets it."""
        record, source = handover.record, self._replicas[handover.source]
        self._pool.leave(handover.source, record)
        record.prefill_replica, record.replica = handover.source, target
        source.release(handover.id)
        if self._observer is not None:
            at = (self._clock.now_ns, handover.id, target, handover.source)
            self._observer.on(TransferEnded(*at, engine_state(source.engine)))
        self._replicas[target].receive(handover)
