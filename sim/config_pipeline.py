"""Pipeline parallelism in a configuration: what it goes with, and where it fits."""

from __future__ import annotations

from typing import Final

from sim.config_errors import ConfigKeyError, value_text
from sim.config_parallel import ParallelConfig
from sim.config_sections import EngineConfig

_SIZE: Final = "parallel.pipeline_parallel_size"


def check_pipeline(parallel: ParallelConfig, engine: EngineConfig) -> None:
    """Refuse what a pipeline does not go with, and micro-batches without one.

    Raises:
        ConfigKeyError: With the key and what it must be.
    """
    stages, micro_batches = parallel.pipeline_parallel_size, engine.num_micro_batches
    if stages == 1:
        if micro_batches not in (None, 1):
            raise ConfigKeyError(
                "engine.num_micro_batches",
                micro_batches,
                f"needs {_SIZE} > 1",
                (_SIZE,),
            )
        return
    for key, value, allowed in (
        ("parallel.data_parallel_size", parallel.data_parallel_size, 1),
        ("parallel.expert_parallel_size", parallel.expert_parallel_size, 1),
        ("parallel.prefill_replicas", parallel.prefill_replicas, None),
        ("engine.fidelity", engine.fidelity, "iteration"),
    ):
        if value != allowed:
            must = "none" if allowed is None else value_text(allowed)
            raise ConfigKeyError(
                key, value, f"must be {must} with {_SIZE} > 1", (_SIZE,)
            )


def micro_batches(parallel: ParallelConfig, engine: EngineConfig) -> int:
    """The most micro-batches in flight; one without a pipeline."""
    return engine.num_micro_batches or parallel.pipeline_parallel_size


def stages_per_node(parallel: ParallelConfig, gpus_per_node: int) -> int:
    """Pipeline stages that a node holds."""
    return max(gpus_per_node // parallel.tensor_parallel_size, 1)


def most_replicas(parallel: ParallelConfig, nodes: int, gpus_per_node: int) -> int:
    """Replicas that nodes hold.

    A tensor-parallel group stays inside a node. A replica that fits into a node does
    not cross it; a larger one has its nodes to itself.
    """
    gpus = parallel.gpus_per_replica
    if parallel.data_parallel_size > 1:
        return nodes * gpus_per_node // gpus
    if gpus <= gpus_per_node:
        return nodes * (gpus_per_node // gpus)
    stages = stages_per_node(parallel, gpus_per_node)
    return nodes // -(-parallel.pipeline_parallel_size // stages)


def nodes_for(parallel: ParallelConfig, replicas: int, gpus_per_node: int) -> int:
    """The fewest nodes that hold so many replicas."""
    nodes = -(-replicas * parallel.gpus_per_replica // gpus_per_node)
    while most_replicas(parallel, nodes, gpus_per_node) < replicas:
        nodes += 1
    return nodes
