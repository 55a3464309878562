"""KV caches in motion between replicas."""

from __future__ import annotations

from collections.abc import Callable

from sim.handover import Handover, KvLinks
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

    def __init__(self, clock: Clock, links: KvLinks, replicas: int) -> None:
        self._clock = clock
        self._links = links
        self._free_ns = [0] * replicas

    def start(
        self, handover: Handover, target: int, on_arrival: Callable[[], None]
    ) -> tuple[int, int]:
        """Send a cache; returns when its links begin and when it has arrived (ns)."""
        source = handover.source
        now_ns, free_ns = self._clock.now_ns, self._free_ns
        begin_ns = max(now_ns, free_ns[source], free_ns[target])
        took_ns = self._links.transfer_ns(source, target, handover.tokens)
        end_ns = free_ns[source] = free_ns[target] = begin_ns + took_ns
        self._clock.process(self._send(end_ns - now_ns, on_arrival))
        return begin_ns, end_ns

    def _send(self, delay_ns: int, on_arrival: Callable[[], None]) -> Process:
        yield self._clock.after(delay_ns, Kind.ARRIVAL)
        on_arrival()
