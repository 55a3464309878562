"""Topics that change while a workload runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sim.errors import ConfigError
from sim.routing_stats import RoutingStats
from workloads.routing.presets import mixed


@dataclass(frozen=True, slots=True)
class Drift:
    """Shares of topics at given times, linear between them.

    Attributes:
        points: (time in ns, share by topic), by increasing time. A sudden change is
            two points a nanosecond apart.
    """

    points: Sequence[tuple[int, Mapping[str, float]]]

    def weights(self, now_ns: int) -> dict[str, float]:
        """Shares of the topics at a time."""
        before = [p for p in self.points if p[0] <= now_ns] or [self.points[0]]
        after = [p for p in self.points if p[0] > now_ns] or [self.points[-1]]
        (start, old), (end, new) = before[-1], after[0]
        part = (now_ns - start) / (end - start) if end > start else 0.0
        part = min(max(part, 0.0), 1.0)
        return {
            topic: (1.0 - part) * old.get(topic, 0.0) + part * new.get(topic, 0.0)
            for topic in sorted({*old, *new})
        }

    def stats(self, parts: Mapping[str, RoutingStats], now_ns: int) -> RoutingStats:
        """Statistics of the workload at a time."""
        return mixed(parts, self.weights(now_ns))


def domain_switches(topics: Sequence[str], period_ns: int, until_ns: int) -> Drift:
    """One topic after the other, each for ``period_ns``, again and again.

    Raises:
        ConfigError: If the period is not positive.
    """
    if period_ns <= 0 or not topics:
        raise ConfigError(f"domain period = {period_ns} ns: must be > 0")
    points: list[tuple[int, Mapping[str, float]]] = []
    for turn in range(until_ns // period_ns + 1):
        share = {topics[turn % len(topics)]: 1.0}
        start = turn * period_ns
        points += [(start, share), (start + period_ns - 1, share)]
    return Drift(points)
