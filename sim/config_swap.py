"""Swap preemption in a configuration: what it goes with."""

from __future__ import annotations

from typing import Final

from sim.config_errors import ConfigKeyError, value_text
from sim.config_parallel import ParallelConfig
from sim.config_sections import EngineConfig, MoeConfig

SWAP: Final = "swap"
_MODE: Final = "engine.preemption_mode"


def check_swap(parallel: ParallelConfig, engine: EngineConfig, moe: MoeConfig) -> None:
    """Refuse what swapping is not modelled with, and a host pool without swapping.

    Raises:
        ConfigKeyError: With the key and what it must be.
    """
    if engine.preemption_mode != SWAP:
        if engine.swap_space is not None:
            raise ConfigKeyError(
                "engine.swap_space",
                engine.swap_space,
                f'needs {_MODE} = "{SWAP}"',
                (_MODE,),
            )
        return
    for key, value, allowed in (
        ("parallel.pipeline_parallel_size", parallel.pipeline_parallel_size, 1),
        ("parallel.data_parallel_size", parallel.data_parallel_size, 1),
        ("parallel.prefill_replicas", parallel.prefill_replicas, None),
        ("engine.enable_prefix_caching", engine.enable_prefix_caching, False),
        ("moe.rebalance_interval", moe.rebalance_interval, None),
        ("moe.topic_period_s", moe.topic_period_s, None),
    ):
        if value != allowed:
            must = "none" if allowed is None else value_text(allowed)
            raise ConfigKeyError(
                key, value, f'must be {must} with {_MODE} = "{SWAP}"', (_MODE,)
            )
