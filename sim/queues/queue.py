"""The role of a waiting queue: in which order a replica's requests are admitted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from sim.view import QueuedRequest


class WaitingQueue(Protocol):
    """Waiting requests of one replica, in the order of their admission.

    Schedulers see it read-only and admit from its front; the engine tells it what
    happens. A preempted request always comes first.

    ``fixed_order`` promises that the order changes only when a request enters or
    leaves; ``charges_decodes`` asks for :meth:`decoded`.
    """

    @property
    def fixed_order(self) -> bool:
        """Whether decoding leaves the order alone."""
        ...

    @property
    def charges_decodes(self) -> bool:
        """Whether it wants to know whose tokens were decoded."""
        ...

    def __len__(self) -> int:
        """Requests that wait."""
        ...

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Waiting requests in the order in which they would be admitted."""
        ...

    def push(self, queued: QueuedRequest) -> None:
        """Take in an arrival."""
        ...

    def push_front(self, queued: QueuedRequest) -> None:
        """Take back a preempted request."""
        ...

    def pop_front(self) -> QueuedRequest:
        """Remove the request that is admitted next; there must be one."""
        ...

    def decoded(self, client: int, tokens: int) -> None:
        """Take note of decoded tokens of a client."""
        ...

    def clear(self) -> None:
        """Forget everything, as an engine does that starts anew."""
        ...
