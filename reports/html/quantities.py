"""The quantities a page shows: names, units, rounding, and which way is better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

UNKNOWN: Final = "-"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A key of ``result.json`` as people read it.

    Attributes:
        key: The key.
        title: Its name.
        unit: Unit after ``factor``.
        factor: From the file's unit to the one shown.
        decimals: Digits after the point.
        less: Whether less is better; None where neither is.
    """

    key: str
    title: str
    unit: str
    factor: float = 1.0
    decimals: int = 2
    less: bool | None = True

    @property
    def label(self) -> str:
        """Name and unit, as on an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def value(self, summary: dict[str, Any]) -> float:
        """The value in the shown unit; NaN where it is not known."""
        number = summary.get(self.key)
        return math.nan if number is None else float(number) * self.factor

    def text(self, summary: dict[str, Any]) -> str:
        """The value as printed."""
        return number_text(self.value(summary), self.decimals)


def number_text(value: float, decimals: int, sign: str = "") -> str:
    """A number at fixed decimals, or a dash if it is not known."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:{sign}.{decimals}f}".replace("-", "\N{MINUS SIGN}")


QUANTITIES: Final = {
    q.key: q
    for q in (
        Quantity("mean_ttft_ms", "mean TTFT", "s", 1e-3),
        Quantity("p99_ttft_ms", "p99 TTFT", "s", 1e-3),
        Quantity("mean_itl_ms", "mean TBT", "ms", 1.0, 1),
        Quantity("p99_itl_ms", "p99 TBT", "ms", 1.0, 1),
        Quantity("mean_e2el_ms", "mean E2E latency", "s", 1e-3),
        Quantity("p99_e2el_ms", "p99 E2E latency", "s", 1e-3),
        Quantity("slo_attainment", "SLO attainment", "%", 100, 1, less=False),
        Quantity("request_goodput", "goodput", "req/s", less=False),
        Quantity(
            "output_throughput", "output throughput", "tokens/s", 1, 0, less=False
        ),
        Quantity("energy_per_token_j", "energy per token", "mJ", 1e3, 1),
        Quantity("energy_per_output_token_j", "energy per output token", "J"),
        Quantity("mean_power_w", "mean power, all GPUs", "W", 1, 0),
        Quantity("expert_weight_bytes", "expert weights read", "TB", 1e-12),
        Quantity("hbm_bytes", "HBM traffic", "TB", 1e-12),
        Quantity("usd_per_million_tokens", "cost per million tokens", "USD", 1, 3),
        Quantity("preemptions", "preemptions", "", 1, 0),
        Quantity(
            "prefix_cache_hit_rate", "prefix cache hit rate", "%", 100, 1, less=False
        ),
        Quantity("extrapolated_fraction", "time extrapolated", "%", 100, 1),
        Quantity("iterations", "iterations", "", 1, 0, less=None),
    )
}
"""By key of ``result.json``, in the order they are shown."""
HEADLINES: Final = (
    "mean_ttft_ms",
    "p99_itl_ms",
    "mean_e2el_ms",
    "slo_attainment",
    "energy_per_token_j",
    "expert_weight_bytes",
    "usd_per_million_tokens",
)
"""What the cards at the top show."""
