"""The configuration as a whole: tables that fit together, names that exist.

Names of schedulers, GPUs, datasets, profiles and routers are plain strings in the
models, for this module must not know their registries: the composition root hands
them to :func:`check_names`.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final, Self

from pydantic import BaseModel, Field, model_validator

from sim.config_errors import ConfigKeyError, one_of
from sim.config_fields import Seed
from sim.config_sections import (
    CHUNKED_PREFILL,
    DYNAMIC_CHUNKED,
    CalibrationConfig,
    ClusterConfig,
    CostConfig,
    EngineConfig,
    ModelConfig,
    MoeConfig,
    ParallelConfig,
    Section,
    SloConfig,
    WorkloadConfig,
)


class Config(Section):
    """A whole configuration; ``Config()`` is the main job.

    Raises:
        ConfigKeyError: If keys contradict each other.
        pydantic.ValidationError: If a value is not allowed (``load_config`` turns it
            into a :class:`~sim.errors.ConfigError`).
    """

    seed: Seed = Field(default=0, description="Root of every random stream.")
    model: ModelConfig = ModelConfig()
    cluster: ClusterConfig = ClusterConfig()
    parallel: ParallelConfig = ParallelConfig()
    engine: EngineConfig = EngineConfig()
    moe: MoeConfig = MoeConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    workload: WorkloadConfig = WorkloadConfig()
    slo: SloConfig = SloConfig()
    cost: CostConfig = CostConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _check_parallel(self)
        _check_pools(self.parallel)
        _check_engine(self.engine)
        _check_workload(self.workload)
        return self

    def resolved(self) -> Config:
        """The same configuration with the defaults that hang on other keys filled in.

        These are ``engine.max_num_batched_tokens`` and ``workload.duration_s``.
        """
        engine = {"max_num_batched_tokens": self.engine.token_budget}
        workload = {"duration_s": self.workload.horizon_s}
        return self.model_copy(
            update={
                "engine": self.engine.model_copy(update=engine),
                "workload": self.workload.model_copy(update=workload),
            }
        )


SECTIONS: Final[dict[str, type[BaseModel]]] = {
    name: field.annotation
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
"""The tables of a configuration by name."""


def check_names(
    config: Config,
    *,
    schedulers: Collection[str],
    datasets: Collection[str],
    profiles: Collection[str],
    gpus: Collection[str],
    routers: Collection[str],
    queues: Collection[str],
) -> None:
    """Refuse a name that no registry holds.

    Raises:
        ConfigKeyError: With the names there are and the nearest one.
    """
    for key, name, known in (
        ("cluster.gpu", config.cluster.gpu, gpus),
        ("parallel.router", config.parallel.router, routers),
        ("engine.scheduler", config.engine.scheduler, schedulers),
        ("engine.queue", config.engine.queue, queues),
        ("calibration.profile", config.calibration.profile, profiles),
        ("workload.dataset", config.workload.dataset, datasets),
    ):
        if name not in known:
            raise ConfigKeyError(key, name, one_of(name, known))


def _check_parallel(config: Config) -> None:
    """A replica stays inside a node, and every replica has its own GPUs."""
    cluster, parallel = config.cluster, config.parallel
    tp, ep = parallel.tensor_parallel_size, parallel.expert_parallel_size
    if tp > cluster.gpus_per_node:
        raise ConfigKeyError(
            "parallel.tensor_parallel_size",
            tp,
            f"must be <= cluster.gpus_per_node ({cluster.gpus_per_node})",
            ("cluster.gpus_per_node",),
        )
    if ep not in (1, tp):
        raise ConfigKeyError(
            "parallel.expert_parallel_size",
            ep,
            f"must be 1 or equal to parallel.tensor_parallel_size ({tp})",
            ("parallel.tensor_parallel_size",),
        )
    room = cluster.nodes * (cluster.gpus_per_node // tp)
    if parallel.replicas > room:
        raise ConfigKeyError(
            "parallel.replicas",
            parallel.replicas,
            f"must be <= {room}, as many replicas of {tp} GPUs as the nodes hold",
            (
                "parallel.tensor_parallel_size",
                "cluster.nodes",
                "cluster.gpus_per_node",
            ),
        )


def _check_pools(parallel: ParallelConfig) -> None:
    """What is prefilled must be decoded somewhere."""
    prefill, replicas = parallel.prefill_replicas, parallel.replicas
    if prefill is not None and prefill >= replicas:
        raise ConfigKeyError(
            "parallel.prefill_replicas",
            prefill,
            f"must be none or < parallel.replicas ({replicas}), for the decode pool"
            " needs a replica",
            ("parallel.replicas",),
        )


def _check_engine(engine: EngineConfig) -> None:
    """Decodes are charged to the chunk, so it must hold one token of each (vLLM)."""
    if (
        engine.scheduler in {CHUNKED_PREFILL, DYNAMIC_CHUNKED}
        and engine.token_budget < engine.max_num_seqs
    ):
        raise ConfigKeyError(
            "engine.max_num_batched_tokens",
            engine.token_budget,
            f"must be >= engine.max_num_seqs ({engine.max_num_seqs}) "
            f"with {engine.scheduler}",
            ("engine.max_num_seqs", "engine.scheduler"),
        )


def _check_workload(workload: WorkloadConfig) -> None:
    """Something must end the requests: a number, a trace, or arrivals in a window."""
    counted = workload.num_requests is not None or workload.path is not None
    if workload.max_concurrency is not None:
        if workload.duration_s is not None:
            raise ConfigKeyError(
                "workload.duration_s",
                workload.duration_s,
                'must be "none" with workload.max_concurrency',
                ("workload.max_concurrency",),
            )
        if not counted:
            raise ConfigKeyError(
                "workload.max_concurrency",
                workload.max_concurrency,
                "needs workload.num_requests",
            )
    elif math.isinf(workload.request_rate) and not counted:
        raise ConfigKeyError(
            "workload.request_rate",
            workload.request_rate,
            "needs workload.num_requests",
        )
