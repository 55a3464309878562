"""Requests that come to a replica from those that prefill them."""

from __future__ import annotations

from collections import deque

from sim.handover import Handover


class Intake:
    """Who is offered, who is on the way, and whose KV cache has arrived.

    Attributes:
        offered: Requests that other replicas hold for this one, in order.
        incoming: Those of them that have slot and blocks here, by request id.
    """

    def __init__(self) -> None:
        self.offered: deque[Handover] = deque()
        self.incoming: dict[int, Handover] = {}
        self._arrived: list[Handover] = []

    def __bool__(self) -> bool:
        return bool(self.offered or self.incoming)

    def take(self) -> Handover:
        """Let the first that is offered come."""
        handover = self.offered.popleft()
        self.incoming[handover.id] = handover
        return handover

    def arrive(self, handover: Handover) -> None:
        """Note that a KV cache is here."""
        self._arrived.append(handover)

    def joining(self) -> list[Handover]:
        """Those whose cache is here, in order of arrival; they are no longer coming."""
        joining, self._arrived = self._arrived, []
        for handover in joining:
            del self.incoming[handover.id]
        return joining

    def withdraw(self, request_id: int) -> Handover | None:
        """Forget a request that will not come; returns it if it has blocks here."""
        handover = self.incoming.pop(request_id, None)
        if handover is None:
            ids = [offered.id for offered in self.offered]
            del self.offered[ids.index(request_id)]
        return handover
