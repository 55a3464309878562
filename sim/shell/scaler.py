"""The autoscaler as a process: starts and drains replicas as load comes and goes."""

from __future__ import annotations

from sim.scaling import Scaling, StableWindow
from sim.shell.clock import Clock, Kind, Moment, Process
from sim.shell.fleet import Fleet


class Scaler:
    """Keeps as many replicas on as a load asks for.

    A replica that drains is the first to be taken back, for it needs no start; of
    those that are on the one with the fewest requests is drained. One that is starting
    is not stopped before it is there.
    """

    def __init__(self, clock: Clock, fleet: Fleet, scaling: Scaling) -> None:
        self._clock = clock
        self._fleet = fleet
        self._scaling = scaling
        self._wanted = scaling.min_replicas
        self._window = StableWindow(scaling.scale_down_delay_ns, self._wanted)
        self._idle: Moment | None = None
        fleet.on_up = self._drain
        clock.process(self._run())

    def begin(self) -> None:
        """Switch off all but the fewest replicas, before anything happens."""
        for replica in range(self._scaling.min_replicas, self._fleet.size):
            self._fleet.drain(replica)

    def see(self, outstanding: int) -> None:
        """So many requests are in progress from now on."""
        wanted = self._scaling.wanted(outstanding, self._fleet.size)
        if wanted == self._wanted:
            return
        self._wanted = wanted
        self._window.note(self._clock.now_ns, wanted)
        while self._fleet.coming < wanted:
            self._fleet.start_one(self._scaling.startup_ns)
        if self._idle is not None and self._window.falls_ns is not None:
            idle, self._idle = self._idle, None
            idle.succeed()

    def _run(self) -> Process:
        """Look again whenever the largest number leaves the window."""
        while True:
            falls_ns = self._window.falls_ns
            if falls_ns is None:
                self._idle = self._clock.event()
                yield self._idle
            else:
                delay_ns = max(0, falls_ns - self._clock.now_ns)
                yield self._clock.after(delay_ns, Kind.FLEET)
                self._fleet.settle()
                self._drain()

    def _drain(self) -> None:
        """Drain what has not been wanted for long enough."""
        largest = self._window.largest(self._clock.now_ns)
        while self._fleet.up > largest:
            self._fleet.drain_one()
