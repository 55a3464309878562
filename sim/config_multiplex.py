"""Prefill and decode on shares of the SMs, in a configuration: what it goes with."""

from __future__ import annotations

from typing import Final

from sim.config_errors import ConfigKeyError, value_text
from sim.config_parallel import ParallelConfig
from sim.config_sections import EngineConfig, MoeConfig

MULTIPLEXED: Final = "multiplexed-prefill"
_SCHEDULER: Final = "engine.scheduler"


def check_multiplex(
    parallel: ParallelConfig, engine: EngineConfig, moe: MoeConfig
) -> None:
    """Refuse what divided SMs are not modelled with.

    Raises:
        ConfigKeyError: With the key and what it must be.
    """
    if engine.scheduler != MULTIPLEXED:
        return
    for key, value, allowed in (
        ("parallel.pipeline_parallel_size", parallel.pipeline_parallel_size, 1),
        ("parallel.data_parallel_size", parallel.data_parallel_size, 1),
        ("parallel.prefill_replicas", parallel.prefill_replicas, None),
        ("engine.fidelity", engine.fidelity, "iteration"),
        ("moe.rebalance_interval", moe.rebalance_interval, None),
        ("moe.topic_period_s", moe.topic_period_s, None),
    ):
        if value != allowed:
            must = "none" if allowed is None else value_text(allowed)
            raise ConfigKeyError(
                key, value, f"must be {must} with {MULTIPLEXED}", (_SCHEDULER,)
            )
