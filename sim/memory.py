"""Memory of a GPU of a configured machine: shown at the start, refused if too small."""

from __future__ import annotations

from typing import Any

from calibration.memory_fit import MemoryFit, memory_fit, most_kv_tokens
from sim.build import Machine
from sim.build_pools import Machines
from sim.config import Config
from sim.config_errors import ConfigKeyError
from sim.config_pipeline import micro_batches
from sim.pools import in_pool, own_table
from sim.schedulers import PARKING
from sim.what_if import what_if_memory

_GB = 1e9


def memory_of(config: Config, machine: Machine) -> MemoryFit:
    """What fills each GPU of a replica, or of the fullest stage of its pipeline."""
    engine = config.engine
    parked = engine.token_budget * micro_batches(config.parallel, engine)
    return memory_fit(
        what_if_memory(config, machine.gpu),
        machine.deployment,
        kv_tokens=machine.num_blocks * engine.block_size,
        batch_tokens=engine.token_budget,
        num_seqs=engine.max_num_seqs,
        parked_tokens=parked * (engine.scheduler in PARKING),
    )


def check_memory(config: Config, machine: Machine) -> None:
    """Refuse what cannot be in memory at once.

    A KV capacity that was read off an engine's log is believed as long as it fits
    beside the weights: what else the engine kept is not known.

    Raises:
        ConfigKeyError: If the KV cache or the largest iteration does not fit.
    """
    engine, gpu = config.engine, what_if_memory(config, machine.gpu)
    if engine.kv_cache_tokens is not None:
        most = most_kv_tokens(gpu, machine.deployment)
        if engine.kv_cache_tokens > most:
            raise ConfigKeyError(
                "engine.kv_cache_tokens",
                engine.kv_cache_tokens,
                f"must be <= {most}: the memory of {machine.power.num_gpus} x"
                f" {gpu.name} beside the weights of {machine.model.name}",
            )
        return
    fit = memory_of(config, machine)
    if fit.needed_bytes > fit.hbm_bytes:
        alive = (fit.activation_bytes + fit.parked_bytes) / _GB
        raise ConfigKeyError(
            "engine.max_num_batched_tokens",
            engine.token_budget,
            f"makes {alive:.1f} GB of activations on each GPU, which do not fit beside"
            f" {(fit.weight_bytes + fit.kv_bytes) / _GB:.1f} GB of weights and KV cache"
            f" in {fit.hbm_bytes / _GB:.1f} GB",
            ("engine.gpu_memory_utilization",),
        )


def check_machines_memory(config: Config, machines: Machines) -> None:
    """As :func:`check_memory`, of every pool.

    Raises:
        ConfigKeyError: With the pool's key, or the pool's name.
    """
    if not machines.pools:
        check_memory(config, machines.machine)
    for part in machines.pools:
        name = part.pool.name
        with in_pool(name, own_table(config.pools, name)):
            check_memory(part.pool.config, part.machine)


def memory_note(fit: MemoryFit) -> str:
    """A line of the start note."""
    parked = f" + {fit.parked_bytes / _GB:.2f} parked" if fit.parked_bytes else ""
    return (
        f"GB per GPU: {fit.weight_bytes / _GB:.1f} weights"
        f" + {fit.kv_bytes / _GB:.1f} KV"
        f" + {fit.activation_bytes / _GB:.2f} activations{parked}"
        f" of {fit.hbm_bytes / _GB:.1f}"
    )


def memory_summary(fit: MemoryFit) -> dict[str, Any]:
    """Keys of ``result.json``."""
    return {
        "gpu_hbm_bytes": fit.hbm_bytes,
        "gpu_weight_bytes": fit.weight_bytes,
        "gpu_kv_cache_bytes": fit.kv_bytes,
        "gpu_activation_bytes": fit.activation_bytes,
        "gpu_parked_bytes": fit.parked_bytes,
    }
