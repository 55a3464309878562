"""How many replicas a load asks for, and for how long it has asked for fewer."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scaling:
    """An autoscaler by outstanding requests.

    The number of replicas wanted is ceil(outstanding / target), as Knative's and
    KServe's autoscaler has it for a concurrency target, on the present count in place
    of an average. More are started at once; fewer only when fewer have been wanted for
    the whole of a window (stabilizationWindowSeconds of Kubernetes' HPA: the largest
    recommendation of the window counts).

    Attributes:
        min_replicas: The fewest; they are on from the start. The most is all there are.
        target_outstanding: Requests per replica to aim for.
        startup_ns: From a start to the first request taken.
        scale_down_delay_ns: The window.
    """

    min_replicas: int
    target_outstanding: int
    startup_ns: int
    scale_down_delay_ns: int

    def wanted(self, outstanding: int, replicas: int) -> int:
        """How many replicas so many requests ask for, of ``replicas``."""
        asked = -(-outstanding // self.target_outstanding)
        return min(max(asked, self.min_replicas), replicas)


class StableWindow:
    """The largest of numbers that change over time, within a sliding window.

    Args:
        width_ns: Of the window.
        first: The number at time 0.
    """

    def __init__(self, width_ns: int, first: int) -> None:
        self._width_ns = width_ns
        self._now = first
        # (number, when it falls out), each larger than all that came after it
        self._past: deque[tuple[int, int]] = deque()

    def note(self, time_ns: int, number: int) -> None:
        """The number changes now."""
        self._keep(self._now, time_ns + self._width_ns)
        self._now = number
        while self._past and self._past[-1][0] <= number:
            self._past.pop()

    def _keep(self, number: int, until_ns: int) -> None:
        while self._past and self._past[-1][0] <= number:
            self._past.pop()
        self._past.append((number, until_ns))

    def largest(self, time_ns: int) -> int:
        """The largest number of the window that ends now."""
        while self._past and self._past[0][1] <= time_ns:
            self._past.popleft()
        return self._past[0][0] if self._past else self._now

    @property
    def falls_ns(self) -> int | None:
        """When the largest number falls out, unless a larger one comes."""
        return self._past[0][1] if self._past else None
