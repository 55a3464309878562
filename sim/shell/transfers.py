"""KV caches in motion between replicas."""

from __future__ import annotations

from collections.abc import Callable

from sim.handover import Handover, KvPaths
from sim.shell.clock import Clock, Kind, Process


class Transfers:
    """The links of all replicas: one cache at a time in and out of each.

    A transfer begins when both its replicas' links are free, in the order in which
    transfers were asked for.

    Args:
        clock: Simulated time.
        links: How long one takes.
        replicas: Number of replicas.
    """

    def __init__(self, clock: Clock, links: KvPaths, replicas: int) -> None:
        self._clock = clock
        self._links = links
        self._free_ns = [0] * replicas

    def reserve(self, source: int, target: int, tokens: float) -> tuple[int, int]:
        """Ask for the links of two replicas; returns when they begin and end (ns)."""
        free_ns = self._free_ns
        begin_ns = max(self._clock.now_ns, free_ns[source], free_ns[target])
        took_ns = self._links.transfer_ns(source, target, tokens)
        end_ns = free_ns[source] = free_ns[target] = begin_ns + took_ns
        return begin_ns, end_ns

    def start(
        self, handover: Handover, target: int, on_arrival: Callable[[], None]
    ) -> tuple[int, int]:
        """Send a cache; returns when its links begin and when it has arrived (ns)."""
        begin_ns, end_ns = self.reserve(handover.source, target, handover.tokens)
        self._clock.process(self._send(end_ns - self._clock.now_ns, on_arrival))
        return begin_ns, end_ns

    def _send(self, delay_ns: int, on_arrival: Callable[[], None]) -> Process:
        yield self._clock.after(delay_ns, Kind.ARRIVAL)
        on_arrival()
