"""From a configuration to the pipeline of a replica."""

from __future__ import annotations

from collections.abc import Callable

from calibration.hardware import Gpu
from calibration.kernels.model_kernels import Deployment
from calibration.links import pipeline_links
from sim.config import Config
from sim.config_pipeline import micro_batches, stages_per_node
from sim.kernel_times import Timed
from sim.pipeline_cost import Pipeline


def pipeline_of(
    config: Config,
    device: Gpu,
    deployment: Deployment,
    gather: Callable[[int], Timed],
) -> Pipeline:
    """Stages, links between them and micro-batches in flight.

    Args:
        config: With nodes, parallelism and engine.
        device: The GPU.
        deployment: The model and its split.
        gather: Time to gather rows over the GPUs of a stage.
    """
    cluster = config.cluster
    return Pipeline(
        stages=deployment.stages,
        links=pipeline_links(
            device,
            deployment.model,
            gather,
            tp=deployment.tp,
            stages_per_node=stages_per_node(config.parallel, cluster.gpus_per_node),
            scale=cluster.link_bandwidth_scale,
        ),
        micro_batches=micro_batches(config.parallel, config.engine),
        budget=config.engine.token_budget,
    )
