"""When a load is served well enough: SLO attainment and limits on any metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sim.config_errors import clip
from sim.errors import ConfigError
from sim.studies.store import Record
from sim.summary import Summary


@dataclass(frozen=True, slots=True)
class Target:
    """What a run must reach.

    Attributes:
        attainment: Least share of requests within every limit of ``[slo]``; None if
            that does not matter.
        limits: Largest allowed value by key of ``result.json``, such as
            ("p99_ttft_ms", 2000.0).
    """

    attainment: float | None = 0.9
    limits: tuple[tuple[str, float], ...] = ()

    def slack(self, record: Record) -> float:
        """How far a run is inside its tightest bound, as a share of that bound.

        Negative if it misses one; minus infinity if it failed, refused a request that
        a limit cannot see, or a metric does not exist.

        Raises:
            ConfigError: If the result has no such metric at all.
        """
        summary = record.summary
        if summary is None:
            return -math.inf
        slacks = [self._limit_slack(summary, key, limit) for key, limit in self.limits]
        if self.attainment is not None:
            share = summary["slo_attainment"]
            if share is None:
                raise ConfigError("slo: no limit is set; allowed: at least one")
            slacks.append((share - self.attainment) / self.attainment)
        elif summary["failed"]:
            return -math.inf
        return min(slacks)

    def text(self) -> str:
        """In words."""
        words = [f"{key} <= {limit:g}" for key, limit in self.limits]
        if self.attainment is not None:
            words.insert(0, f"SLO attainment >= {100 * self.attainment:g} %")
        return " and ".join(words)

    @staticmethod
    def _limit_slack(summary: Summary, key: str, limit: float) -> float:
        if key not in summary or isinstance(summary[key], str):
            names = ", ".join(k for k in summary if k.endswith("_ms"))
            raise ConfigError(f"--limit {clip(key)}: no such metric; some: {names}")
        value = summary[key]
        return -math.inf if value is None else (limit - value) / limit


def parse_target(attainment: float | None, limits: Sequence[str]) -> Target:
    """The target of the command line: a level, and ``KEY=NUMBER`` texts.

    Without a level, limits alone decide; without either it is 90 %.

    Raises:
        ConfigError: If a text is not a key and a number > 0.
    """
    pairs = []
    for text in limits:
        key, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f'--limit "{clip(text)}": must be METRIC=NUMBER > 0')
        pairs.append((key.strip(), value))
    if attainment is None and not pairs:
        return Target()
    return Target(attainment, tuple(pairs))
