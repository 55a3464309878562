"""Tables of the configuration that say what a good request is, and what GPUs cost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sim.config_fields import Milliseconds, OrNone, Usd
from sim.config_sections import Section


class SloConfig(Section):
    """What a good request is: it meets every limit that is set.

    The defaults are the limits of the layered-prefill paper's evaluation for
    Qwen3-30B-A3B on H100 under arXiv summarisation.
    """

    ttft_ms: Annotated[Milliseconds | None, OrNone] = Field(
        default=10_000.0, description="Time to first token, ms; none sets no limit."
    )
    tpot_ms: Annotated[Milliseconds | None, OrNone] = Field(
        default=None, description="Mean time per output token, ms."
    )
    itl_ms: Annotated[Milliseconds | None, OrNone] = Field(
        default=125.0, description="Every gap between output tokens, ms."
    )
    e2el_ms: Annotated[Milliseconds | None, OrNone] = Field(
        default=None, description="End-to-end latency, ms."
    )


class CostConfig(Section):
    """What it costs."""

    usd_per_gpu_hour: Usd = Field(
        default=2.5, description="Price of one GPU for one hour, US dollars."
    )
