"""Which replicas are there: failures, drains, and what they leave behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from sim.errors import ConfigError
from sim.events import (
    Event,
    Observer,
    ReplicaDown,
    ReplicaDraining,
    ReplicaStarting,
    ReplicaUp,
    engine_state,
)
from sim.outages import OffSpan, Outage, Outages
from sim.request import RequestRecord
from sim.shell.clock import Clock, Kind, Process
from sim.shell.pool import Pool
from sim.shell.replica import Replica


class _Mode(Enum):
    UP = auto()
    DRAINING = auto()
    DOWN = auto()
    STARTING = auto()


@dataclass(frozen=True, slots=True)
class FleetOutlets:
    """What the client learns of replicas.

    Attributes:
        lost: A replica has failed with these requests.
        opened: A replica takes requests again.
    """

    lost: Callable[[Sequence[RequestRecord]], None]
    opened: Callable[[], None]


class Fleet:
    """Replicas that come and go.

    A failed replica loses what it has at once. A drained one takes nothing new, goes
    off when it has finished all that was sent to it, and is there again, with an empty
    cache if it was off, when the drain ends.

    Args:
        clock: Simulated time.
        replicas: All of them.
        pool: Routes to those that take requests.
        outlets: The client's side.

    Attributes:
        off: Stretches in which each replica took no power, but for the present one.
        starts: How often one was started.
        on_up: Is called when a replica that was started takes requests.
        observer: Is told of every change, or None.
    """

    def __init__(
        self,
        clock: Clock,
        replicas: Sequence[Replica],
        pool: Pool,
        outlets: FleetOutlets,
    ) -> None:
        self._clock = clock
        self._replicas = replicas
        self._pool = pool
        self._outlets = outlets
        self._modes = [_Mode.UP] * len(replicas)
        self._down: dict[int, tuple[int, bool]] = {}  # since when, whether paid for
        self.off: list[list[OffSpan]] = [[] for _ in replicas]
        self.starts = 0
        self.on_up: Callable[[], None] = lambda: None
        self.observer: Observer | None = None

    @property
    def size(self) -> int:
        """All replicas there are."""
        return len(self._modes)

    @property
    def up(self) -> int:
        """Replicas that take requests."""
        return self._modes.count(_Mode.UP)

    @property
    def coming(self) -> int:
        """Replicas that take requests or are starting."""
        return self.up + self._modes.count(_Mode.STARTING)

    def suffer(self, outages: Outages) -> None:
        """Let outages happen at their times."""
        for replica, own in enumerate(outages.of):
            self._clock.process(self._suffer(replica, own, endless=outages.endless))

    def settle(self) -> None:
        """End all iterations that end now, before replicas come or go."""
        for replica in self._replicas:
            replica.settle()

    def is_down(self, replica: int) -> bool:
        """Whether a replica can take in nothing, not even what is on its way."""
        return self._modes[replica] is _Mode.DOWN

    def left(self, replica: int) -> None:
        """A request has left a replica, which may be off now if it drains."""
        draining = self._modes[replica] is _Mode.DRAINING
        if draining and not self._pool.outstanding(replica):
            self._go_down(replica, failed=False)

    def off_spans(self) -> tuple[Sequence[OffSpan], ...]:
        """Stretches without power of each replica, the present ones open."""
        spans = [list(own) for own in self.off]
        for replica, (since_ns, paid) in self._down.items():
            spans[replica].append(OffSpan(since_ns, None, paid))
        return tuple(map(tuple, spans))

    def _suffer(
        self, replica: int, outages: Sequence[Outage], *, endless: bool
    ) -> Process:
        clock = self._clock
        for outage in outages:
            yield clock.after(outage.start_ns - clock.now_ns, Kind.FLEET, replica)
            self.settle()
            if outage.failure:
                self._fail(replica)
            else:
                self.drain(replica)
            yield clock.after(outage.end_ns - clock.now_ns, Kind.FLEET, replica)
            self.settle()
            self.bring_up(replica)
        if endless:
            raise ConfigError(
                f"cluster.mtbf_s: replica {replica} failed {len(outages)} times and"
                " requests are still not done; allowed: failures rarer than that"
            )

    def drain_one(self) -> None:
        """Drain the replica with the fewest requests, the highest index on ties."""
        up = [k for k, mode in enumerate(self._modes) if mode is _Mode.UP]
        self.drain(min(up, key=lambda k: (self._pool.outstanding(k), -k)))

    def start_one(self, startup_ns: int) -> None:
        """Take back a replica that drains, or start one that is off."""
        if _Mode.DRAINING in self._modes:
            self.bring_up(self._modes.index(_Mode.DRAINING))
            return
        replica = self._modes.index(_Mode.DOWN)
        self._switch_on(replica)
        self._modes[replica] = _Mode.STARTING
        self.starts += 1
        self._tell(ReplicaStarting(self._clock.now_ns, replica))
        self._clock.process(self._start(replica, startup_ns))

    def _start(self, replica: int, startup_ns: int) -> Process:
        yield self._clock.after(startup_ns, Kind.FLEET, replica)
        self.settle()
        self.bring_up(replica)
        self.on_up()

    def _fail(self, replica: int) -> None:
        lost = self._replicas[replica].reset()
        self._go_down(replica, failed=True)
        self._outlets.lost(lost)

    def drain(self, replica: int) -> None:
        """Take no new requests; go off as soon as there are none."""
        self._set(replica, _Mode.DRAINING)
        self._tell(ReplicaDraining(self._clock.now_ns, replica))
        self.left(replica)

    def _go_down(self, replica: int, *, failed: bool) -> None:
        now_ns = self._clock.now_ns
        if not failed:
            self._replicas[replica].reset()
        self._down[replica] = (now_ns, failed)
        self._set(replica, _Mode.DOWN)
        state = engine_state(self._replicas[replica].engine)
        self._tell(ReplicaDown(now_ns, replica, failed, state))

    def bring_up(self, replica: int) -> None:
        """Take requests again."""
        self._switch_on(replica)
        self._set(replica, _Mode.UP)
        self._tell(ReplicaUp(self._clock.now_ns, replica))
        self._outlets.opened()

    def _switch_on(self, replica: int) -> None:
        if replica in self._down:
            since_ns, paid = self._down.pop(replica)
            self.off[replica].append(OffSpan(since_ns, self._clock.now_ns, paid))

    def _set(self, replica: int, mode: _Mode) -> None:
        self._modes[replica] = mode
        open_ones = [k for k, m in enumerate(self._modes) if m is _Mode.UP]
        self._pool.set_open(open_ones)

    def _tell(self, event: Event) -> None:
        if self.observer is not None:
            self.observer.on(event)
