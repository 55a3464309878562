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
        self.observer: Observer | None = None

    def suffer(self, outages: Outages) -> None:
        """Let outages happen at their times."""
        for replica, own in enumerate(outages.of):
            self._clock.process(self._suffer(replica, own, endless=outages.endless))

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
            if outage.failure:
                self._fail(replica)
            else:
                self.drain(replica)
            yield clock.after(outage.end_ns - clock.now_ns, Kind.FLEET, replica)
            self.bring_up(replica)
        if endless:
            raise ConfigError(
                f"cluster.mtbf_s: replica {replica} failed {len(outages)} times and"
                " requests are still not done; allowed: failures rarer than that"
            )

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
        now_ns = self._clock.now_ns
        if replica in self._down:
            since_ns, paid = self._down.pop(replica)
            self.off[replica].append(OffSpan(since_ns, now_ns, paid))
        self._set(replica, _Mode.UP)
        self._tell(ReplicaUp(now_ns, replica))
        self._outlets.opened()

    def _set(self, replica: int, mode: _Mode) -> None:
        self._modes[replica] = mode
        open_ones = [k for k, m in enumerate(self._modes) if m is _Mode.UP]
        self._pool.set_open(open_ones)

    def _tell(self, event: Event) -> None:
        if self.observer is not None:
            self.observer.on(event)
