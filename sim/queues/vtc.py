"""Fair admission among clients: the Virtual Token Counter."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

from sim.view import QueuedRequest

INPUT_WEIGHT: Final = 1
OUTPUT_WEIGHT: Final = 2
"""Service of a prompt token and of a generated one (arXiv 2401.00588, section 5.1)."""


class VirtualTokenCounter:
    """VTC (Sheng et al., "Fairness in Serving Large Language Models", OSDI'24).

    Every client has a counter of the service it got: its prompts' tokens when they are
    admitted, its output tokens as they are decoded, by their weights. The next request
    is the oldest of the waiting client with the smallest counter, the lowest client on
    ties. A client that comes back to the queue is lifted to the least counter in it
    (to that of the last client that left, if it is empty), so that idling earns no
    credit. Two clients that wait all the time differ in service by at most 2 max(input
    weight x longest prompt, output weight x tokens the batch can hold) (theorem 4.4 of
    arXiv 2401.00588); a preempted request is recomputed free of charge.

    Attributes:
        served: Counter of each client that ever came.
    """

    fixed_order = False
    charges_decodes = True

    def __init__(self) -> None:
        self._preempted: deque[QueuedRequest] = deque()
        self._waiting: dict[int, deque[QueuedRequest]] = {}
        self._size = 0
        self._last_left: int | None = None
        self.served: dict[int, int] = {}

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._preempted) + self._size

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Preempted ones, then as they would be admitted one after the other."""
        yield from self._preempted
        counters = {client: self.served[client] for client in self._waiting}
        rest = {client: iter(queue) for client, queue in self._waiting.items()}
        while counters:
            client = _least(counters)
            queued = next(rest[client], None)
            if queued is None:
                del counters[client]
            else:
                counters[client] += INPUT_WEIGHT * queued.tokens
                yield queued

    def push(self, queued: QueuedRequest) -> None:
        """Take in an arrival; its client is lifted if it had none waiting."""
        client = queued.client
        self.served.setdefault(client, 0)
        if client not in self._waiting:
            self._lift(client)
            self._waiting[client] = deque()
        self._waiting[client].append(queued)
        self._size += 1

    def _lift(self, client: int) -> None:
        if self._waiting:
            floor = min(self.served[other] for other in self._waiting)
        elif self._last_left is not None:
            floor = self.served[self._last_left]
        else:
            return
        self.served[client] = max(self.served[client], floor)

    def push_front(self, queued: QueuedRequest) -> None:
        """Take back a preempted request."""
        self._preempted.appendleft(queued)

    def pop_front(self) -> QueuedRequest:
        """Remove the first and charge its prompt to its client."""
        if self._preempted:
            return self._preempted.popleft()
        client = _least({client: self.served[client] for client in self._waiting})
        queued = self._waiting[client].popleft()
        self._size -= 1
        self.served[client] += INPUT_WEIGHT * queued.tokens
        if not self._waiting[client]:
            del self._waiting[client]
            self._last_left = client
        return queued

    def decoded(self, client: int, tokens: int) -> None:
        """Charge output tokens to their client."""
        served = self.served.get(client, 0)  # it may have been prefilled elsewhere
        self.served[client] = served + OUTPUT_WEIGHT * tokens

    def clear(self) -> None:
        """Forget everybody, and what they were served."""
        self._preempted.clear()
        self._waiting.clear()
        self._size, self._last_left = 0, None
        self.served.clear()


def _least(counters: Mapping[int, int]) -> int:
    """The client with the smallest counter, the lowest on ties."""
    return min(counters, key=lambda client: (counters[client], client))
