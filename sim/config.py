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
from sim.config_goals import CostConfig, SloConfig
from sim.config_multiplex import check_multiplex
from sim.config_parallel import ParallelConfig
from sim.config_pipeline import check_pipeline, most_replicas
from sim.config_pools import PoolsConfig, check_pools
from sim.config_sections import (
    CHUNKED_PREFILL,
    DYNAMIC_CHUNKED,
    CalibrationConfig,
    ClusterConfig,
    EngineConfig,
    ModelConfig,
    MoeConfig,
    Section,
)
from sim.config_swap import check_swap
from sim.config_workload import WorkloadConfig


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
    pools: PoolsConfig = PoolsConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_pipeline(self.parallel, self.engine)
        check_multiplex(self.parallel, self.engine, self.moe)
        check_swap(self.parallel, self.engine, self.moe)
        if self.pools:
            check_pools(self.pools, self.parallel, self.cluster, self.engine)
        else:  # a pool is checked on its own, by sim.pools
            _check_parallel(self)
            _check_moe(self)
        _check_pools(self.parallel)
        _check_outages(self)
        _check_scaling(self)
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
                "pools": self.pools.resolved(self.engine),
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
    placements: Collection[str],
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
        ("moe.placement", config.moe.placement, placements),
        ("workload.dataset", config.workload.dataset, datasets),
    ):
        if name is not None and name not in known:
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
    stages = parallel.pipeline_parallel_size
    if stages > 1 and not most_replicas(parallel, cluster.nodes, cluster.gpus_per_node):
        raise ConfigKeyError(
            "parallel.pipeline_parallel_size",
            stages,
            f"needs {stages} groups of {tp} GPUs, more than the nodes hold:"
            f" {cluster.nodes} of {cluster.gpus_per_node} GPUs",
            (
                "parallel.tensor_parallel_size",
                "cluster.nodes",
                "cluster.gpus_per_node",
            ),
        )
    gpus = parallel.gpus_per_replica
    if ep not in (1, gpus):
        times = " * parallel.data_parallel_size" if gpus != tp else ""
        raise ConfigKeyError(
            "parallel.expert_parallel_size",
            ep,
            f"must be 1 or equal to parallel.tensor_parallel_size{times} ({gpus})",
            ("parallel.tensor_parallel_size", "parallel.data_parallel_size"),
        )
    if parallel.data_parallel_size > 1 and ep != gpus:
        raise ConfigKeyError(
            "parallel.data_parallel_size",
            parallel.data_parallel_size,
            f"needs parallel.expert_parallel_size = {gpus}",
            ("parallel.expert_parallel_size",),
        )
    dp = parallel.data_parallel_size
    if dp > 1 and gpus > cluster.gpus_per_node and gpus % cluster.gpus_per_node:
        raise ConfigKeyError(
            "parallel.data_parallel_size",
            dp,
            f"makes {gpus} GPUs, which must fill nodes of {cluster.gpus_per_node}",
            ("cluster.gpus_per_node",),
        )
    room = most_replicas(parallel, cluster.nodes, cluster.gpus_per_node)
    if parallel.replicas > room:
        raise ConfigKeyError(
            "parallel.replicas",
            parallel.replicas,
            f"must be <= {room}, as many replicas of {gpus} GPUs as the nodes hold",
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


def _check_outages(config: Config) -> None:
    """One source of outages, and no KV cache on its way when a replica fails."""
    cluster, pools = config.cluster, config.parallel.prefill_replicas
    if (cluster.mtbf_s is None) != (cluster.repair_s is None):
        raise ConfigKeyError(
            "cluster.repair_s",
            cluster.repair_s,
            "must be set if and only if cluster.mtbf_s is",
            ("cluster.mtbf_s",),
        )
    for key in ("outages", "mtbf_s"):
        value = getattr(cluster, key)
        if value is not None and pools is not None:
            raise ConfigKeyError(
                f"cluster.{key}",
                value,
                "must be none with parallel.prefill_replicas: failures in a"
                " disaggregated cluster are not modelled",
                ("parallel.prefill_replicas",),
            )
    if cluster.mtbf_s is not None and cluster.outages is not None:
        raise ConfigKeyError(
            "cluster.mtbf_s", cluster.mtbf_s, "must be none with cluster.outages"
        )


def _check_scaling(config: Config) -> None:
    """An autoscaler knows how long a start takes, and has the replicas to itself."""
    parallel, cluster = config.parallel, config.cluster
    fewest = parallel.min_replicas
    if (fewest is None) != (parallel.startup_s is None):
        raise ConfigKeyError(
            "parallel.startup_s",
            parallel.startup_s,
            "must be set if and only if parallel.min_replicas is",
            ("parallel.min_replicas",),
        )
    if fewest is None:
        return
    if fewest > parallel.replicas:
        raise ConfigKeyError(
            "parallel.min_replicas",
            fewest,
            f"must be none or <= parallel.replicas ({parallel.replicas})",
            ("parallel.replicas",),
        )
    for key, value in (
        ("parallel.prefill_replicas", parallel.prefill_replicas),
        ("cluster.outages", cluster.outages),
        ("cluster.mtbf_s", cluster.mtbf_s),
    ):
        if value is not None:
            raise ConfigKeyError(
                "parallel.min_replicas", fewest, f"must be none with {key}", (key,)
            )


def _check_engine(engine: EngineConfig) -> None:
    """Decodes are charged to the chunk, so it must hold one token of each (vLLM)."""
    if engine.overlap != "none" and engine.fidelity != "kernel":
        raise ConfigKeyError(
            "engine.overlap",
            engine.overlap,
            'needs engine.fidelity = "kernel"',
            ("engine.fidelity",),
        )
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


def _check_moe(config: Config) -> None:
    """What places experts needs experts that are whole, on several GPUs."""
    moe, parallel = config.moe, config.parallel
    if moe.affinity is not None and moe.statistics is not None:
        raise ConfigKeyError(
            "moe.affinity", moe.affinity, 'must be "none" with moe.statistics'
        )
    whole = parallel.expert_parallel_size > 1
    for key, value in (
        ("placement", moe.placement),
        ("statistics", moe.statistics),
        ("fit_statistics", moe.fit_statistics),
        ("affinity", moe.affinity),
        ("communication", moe.communication),
        ("redundant_experts", moe.redundant_experts),
        ("rebalance_interval", moe.rebalance_interval),
        ("topics", moe.topics),
    ):
        if not whole and value != MoeConfig.model_fields[key].default:
            gpus = parallel.gpus_per_replica
            raise ConfigKeyError(
                f"moe.{key}",
                value,
                "needs whole experts on several GPUs: parallel.expert_parallel_size"
                f" = {gpus if gpus > 1 else 'the GPUs of a replica'}, not 1",
                ("parallel.expert_parallel_size",),
            )
    if moe.topic_period_s is not None and moe.topics == 1:
        raise ConfigKeyError(
            "moe.topic_period_s", moe.topic_period_s, "needs moe.topics > 1"
        )
    if moe.topics > 1 and (moe.affinity is not None or moe.statistics != "preset"):
        raise ConfigKeyError("moe.topics", moe.topics, 'needs moe.statistics "preset"')
    _check_fit(moe)
    if moe.all_to_all == "deepep" and moe.communication != "ep_home":
        raise ConfigKeyError(
            "moe.all_to_all",
            moe.all_to_all,
            'needs moe.communication = "ep_home"',
            ("moe.communication",),
        )
    tp = parallel.tensor_parallel_size
    if moe.communication == "context_coherent" and tp > 1:
        raise ConfigKeyError(
            "moe.communication",
            moe.communication,
            f"needs parallel.tensor_parallel_size = 1, not {tp}, and"
            " parallel.data_parallel_size: every GPU attends for any token",
            ("parallel.tensor_parallel_size",),
        )


def _check_fit(moe: MoeConfig) -> None:
    """A placement fitted elsewhere is one, stays, and leaves routing as it is."""
    if moe.fit_statistics is None:
        return
    for key, value, wrong, allowed in (
        ("placement", moe.placement, moe.placement is None, "a strategy"),
        ("placement", moe.placement, moe.placement == "alf_bias", "another strategy"),
        ("topics", moe.topics, moe.topics > 1, "1"),
        (
            "rebalance_interval",
            moe.rebalance_interval,
            moe.rebalance_interval is not None,
            '"none"',
        ),
    ):
        if wrong:
            raise ConfigKeyError(
                f"moe.{key}", value, f"must be {allowed} with moe.fit_statistics"
            )


def _check_workload(workload: WorkloadConfig) -> None:
    """Something must end the requests: a number, a trace, or arrivals in a window."""
    if workload.path is not None and workload.session_turns_mean > 1:
        raise ConfigKeyError(
            "workload.session_turns_mean",
            workload.session_turns_mean,
            "must be 1 with workload.path: a trace has its own requests",
            ("workload.path",),
        )
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
