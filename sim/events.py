"""What happens in a run, as typed events for an optional observer.

Events are facts: an observer cannot change a run. Times are integer nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sim.engine import Engine
from sim.engine_state import EngineState
from sim.handover import KvPaths
from sim.iteration_log import IterationLog
from sim.plan import StepPlan
from sim.queues.fcfs import FirstComeFirstServed
from sim.request import Request, RequestRecord
from sim.step import StepCost
from sim.swapping import SwappingEngine
from sim.transfer_events import (
    Offered,
    PartSent,
    StreamStarted,
    StreamWithdrawn,
    TransferEnded,
    TransferStarted,
)
from sim.view import EngineLimits


@dataclass(frozen=True, slots=True)
class ReplicaSetup:
    """What a replica promises; see :class:`~sim.view.Scheduler`.

    ``work_conserving`` is of the head of a queue in order of arrival: under another
    discipline nothing is promised. ``host_blocks`` is the size of the host pool that
    preempted requests' KV blocks go to, 0 if they are recomputed.
    """

    limits: EngineLimits
    num_blocks: int
    stall_free: bool
    work_conserving: bool
    hands_over: bool = False
    prefix_caching: bool = False
    host_blocks: int = 0


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins at time 0 with idle replicas.

    Attributes:
        replicas: One per replica.
        requests: The workload, in its order.
        max_concurrency: Most requests in progress (closed loop), or None.
        frontend_ns: From a request's being sent to its engine's queue.
        links: Between prefill and decode replicas, if they are apart.
        streams: Whether KV caches move while they are computed.
    """

    replicas: tuple[ReplicaSetup, ...]
    requests: Sequence[Request]
    max_concurrency: int | None
    frontend_ns: int
    links: KvPaths | None = None
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Arrived:
    """The client has a request to send."""

    time_ns: int
    request_id: int


@dataclass(frozen=True, slots=True)
class Sent:
    """The client sends a request to a replica; the first time counts as its arrival."""

    time_ns: int
    request_id: int
    replica: int


@dataclass(frozen=True, slots=True)
class Queued:
    """A request joins its engine's queue.

    While a block of iterations is under way, ``state`` is that of its first one, but
    for those who joined since.
    """

    time_ns: int
    request_id: int
    replica: int
    state: EngineState


@dataclass(frozen=True, slots=True)
class Rejected:
    """An engine refuses a request."""

    time_ns: int
    request_id: int
    replica: int


@dataclass(frozen=True, slots=True)
class IterationStarted:
    """A replica begins ``plan``: victims are out, blocks reserved, prompts admitted.

    Who comes back from the host first, and which victims go there, a
    :class:`~sim.plan.SwapPlan` says.
    """

    time_ns: int
    replica: int
    plan: StepPlan
    state: EngineState


@dataclass(frozen=True, slots=True)
class IterationsEnded:
    """The plan begun last ran ``len(end_ns)`` times, back to back.

    More than once only if it does nothing but decode, and nobody enters, leaves or is
    preempted before the last end: what would be as many events with equal batches is
    one event.

    Attributes:
        time_ns: The last end.
        replica: Index of the replica.
        end_ns: End of each iteration, of any integer sequence (an array will do).
        cost: Sum of what each of them costs.
        finished: Requests that emitted their last token at ``time_ns``.
        state: The engine without them.
    """

    time_ns: int
    replica: int
    end_ns: Sequence[int]
    cost: StepCost
    finished: tuple[int, ...]
    state: EngineState


@dataclass(frozen=True, slots=True)
class Stalled:
    """A replica has requests but nothing to run before a KV cache has moved."""

    time_ns: int
    replica: int
    state: EngineState


@dataclass(frozen=True, slots=True)
class IterationsPassed:
    """Iterations of the plan begun last have ended, and it goes on with another one.

    Told when something comes to their replica, and not as they ended.

    Attributes:
        time_ns: When it comes, after the last of them.
        replica: Index of the replica.
        end_ns: End of each, in order.
    """

    time_ns: int
    replica: int
    end_ns: Sequence[int]


@dataclass(frozen=True, slots=True)
class IterationsCut:
    """A failure cuts off the iteration under way; :class:`ReplicaDown` follows.

    Attributes:
        time_ns: Of the failure.
        replica: Index of the replica.
        cost: What it has cost, and those of its plan that ended.
    """

    time_ns: int
    replica: int
    cost: StepCost


@dataclass(frozen=True, slots=True)
class ReplicaDraining:
    """A replica takes no new requests and finishes those it has."""

    time_ns: int
    replica: int


@dataclass(frozen=True, slots=True)
class ReplicaDown:
    """A replica takes no power from now on, and holds nothing.

    Attributes:
        time_ns: From when.
        replica: Index of the replica.
        failed: Whether it lost what it had; else it had nothing any more.
        state: Its engine, empty.
    """

    time_ns: int
    replica: int
    failed: bool
    state: EngineState


@dataclass(frozen=True, slots=True)
class ReplicaStarting:
    """A replica that was off takes power again, and no requests yet."""

    time_ns: int
    replica: int


@dataclass(frozen=True, slots=True)
class ReplicaUp:
    """A replica takes requests again."""

    time_ns: int
    replica: int


@dataclass(frozen=True, slots=True)
class Retried:
    """A request was on a replica when it failed; the client has to send it again."""

    time_ns: int
    request_id: int
    replica: int


@dataclass(frozen=True, slots=True)
class Stranded:
    """The client sends a request, which counts as its arrival: no replica takes it."""

    time_ns: int
    request_id: int


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Nothing is left to happen.

    Attributes:
        time_ns: Time of the last event.
        records: One per request, in workload order.
        logs: One per replica.
    """

    time_ns: int
    records: Sequence[RequestRecord]
    logs: Sequence[IterationLog]


Timed = (
    Arrived
    | Sent
    | Queued
    | Rejected
    | IterationStarted
    | IterationsPassed
    | IterationsEnded
    | Offered
    | TransferStarted
    | TransferEnded
    | StreamStarted
    | PartSent
    | StreamWithdrawn
    | Stalled
    | IterationsCut
    | ReplicaDraining
    | ReplicaDown
    | ReplicaStarting
    | ReplicaUp
    | Retried
    | Stranded
    | RunEnded
)
"""What happens at a time."""
Event = RunStarted | Timed
"""Everything an observer may be told."""


Stated = (
    Queued
    | IterationStarted
    | IterationsEnded
    | TransferStarted
    | TransferEnded
    | StreamStarted
    | StreamWithdrawn
    | Stalled
    | ReplicaDown
)
"""Events that come with the state of an engine."""


def stated_by(event: Stated) -> int:
    """Index of the replica whose state comes with an event."""
    return event.source if isinstance(event, TransferEnded) else event.replica


class Observer(Protocol):
    """Is told every event of a run, in the order they happen.

    An error it raises ends the run.
    """

    def on(self, event: Event) -> None:
        """Take note of an event; must not change what it refers to."""
        ...


def engine_state(engine: Engine) -> EngineState:
    """The state of an engine now."""
    return EngineState(
        len(engine.waiting),
        len(engine.prefilling),
        engine.decoding.size,
        engine.num_blocks - engine.free_blocks,
        len(engine.parked),
        len(engine.intake.incoming),
        engine.host_blocks - engine.free_host_blocks
        if isinstance(engine, SwappingEngine)
        else 0,
    )


def replica_setup(engine: Engine) -> ReplicaSetup:
    """What an engine was built with."""
    scheduler = engine.scheduler
    return ReplicaSetup(
        engine.limits,
        engine.num_blocks,
        scheduler.stall_free,
        scheduler.work_conserving and isinstance(engine.waiting, FirstComeFirstServed),
        engine.hands_over,
        engine.cache is not None,
        engine.host_blocks if isinstance(engine, SwappingEngine) else 0,
    )
