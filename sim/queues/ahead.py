"""A queue whose newest arrivals the engine had scheduled too early to see."""

from __future__ import annotations

from collections.abc import Iterator

from sim.queues.queue import WaitingQueue
from sim.view import QueuedRequest


class ScheduledAhead:
    """Any discipline under an engine that schedules while the GPU computes.

    Such an engine (vLLM's ``--async-scheduling``, SGLang's and TensorRT-LLM's overlap
    schedulers) has decided the next iteration when one begins: who comes meanwhile
    waits through it too, unless nothing was there to be scheduled. Here the plan is
    made when that next iteration begins, without those who came late. Not modelled: who
    ends in the iteration before it gives slot and blocks free in time for the plan.

    Attributes:
        behind: The discipline.
    """

    def __init__(self, behind: WaitingQueue) -> None:
        self.behind = behind
        self._late: list[QueuedRequest] = []

    @property
    def fixed_order(self) -> bool:
        """Whether decoding leaves the order alone, and nobody is late."""
        return self.behind.fixed_order and not self._late

    @property
    def charges_decodes(self) -> bool:
        """As the discipline."""
        return self.behind.charges_decodes

    def __len__(self) -> int:
        """Requests that wait, the late ones too."""
        return len(self.behind) + len(self._late)

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Who can be admitted, in order; not who is late."""
        return iter(self.behind)

    def push(self, queued: QueuedRequest) -> None:
        """Take in an arrival, too late for the coming iteration."""
        self._late.append(queued)

    def begin(self) -> None:
        """An iteration begins: who has come can be in the next one."""
        if self._late:
            for queued in self._late:
                self.behind.push(queued)
            self._late.clear()

    def idle(self) -> None:
        """Nobody runs: if nobody could have been scheduled, nobody is late."""
        if not self.behind:
            self.begin()

    def push_front(self, queued: QueuedRequest) -> None:
        """Take back a preempted request, which the engine knows of."""
        self.behind.push_front(queued)

    def pop_front(self) -> QueuedRequest:
        """Remove the request that is admitted next; there must be one."""
        return self.behind.pop_front()

    def decoded(self, client: int, tokens: int) -> None:
        """As the discipline."""
        self.behind.decoded(client, tokens)

    def clear(self) -> None:
        """Forget everything."""
        self.behind.clear()
        self._late.clear()
