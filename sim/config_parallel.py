"""The table ``parallel`` of the configuration: GPUs of a replica, replicas, routing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sim.config_fields import Count, Name, OrNone, Replicas, StartupSeconds
from sim.config_sections import Section


class ParallelConfig(Section):
    """How the model is spread over GPUs."""

    tensor_parallel_size: Count = Field(
        default=2,
        description="GPUs of one replica, or of one pipeline stage; they share a node.",
    )
    pipeline_parallel_size: Count = Field(
        default=1,
        description="Pipeline stages of a replica, each of tensor_parallel_size GPUs "
        "with a share of the layers; they may lie on several nodes.",
    )
    data_parallel_size: Count = Field(
        default=1,
        description="Data-parallel ranks of attention in one replica, each of "
        "tensor_parallel_size GPUs; requests are spread evenly over them. Over 1 for "
        "mixture-of-experts models only.",
    )
    expert_parallel_size: Count = Field(
        default=1,
        description="1 splits every expert over the replica's GPUs; "
        "tensor_parallel_size * data_parallel_size spreads whole experts over them, as "
        "vLLM does.",
    )
    replicas: Replicas = Field(default=1, description="Copies of the model.")
    prefill_replicas: Annotated[Replicas | None, OrNone] = Field(
        default=None,
        description="Disaggregation: so many of the replicas only prefill and hand KV "
        "caches to the others, which only decode; none: every replica does both.",
    )
    kv_transfer: Literal["whole", "chunk-wise", "layer-wise"] = Field(
        default="whole",
        description="Disaggregation: KV caches are sent after the prefill; what each "
        "iteration adds (a chunk, a layer group) at its end; or also layer by layer "
        "where an iteration runs prompts through all layers alike.",
    )
    router: Name = Field(
        default="round-robin",
        description="How requests are spread over replicas.",
        examples=["round-robin", "random", "power-of-two-choices"],
    )

    min_replicas: Annotated[Replicas | None, OrNone] = Field(
        default=None,
        description="Autoscaling: so many of the replicas are on at the start and "
        "always, the others when load asks for them; none: all are on.",
    )
    target_outstanding: Count = Field(
        default=100,
        description="Autoscaling: outstanding requests per replica to aim for; the "
        "default is Knative's concurrency target.",
    )
    startup_s: Annotated[StartupSeconds | None, OrNone] = Field(
        default=None,
        description="Autoscaling: seconds from the start of a replica until it takes "
        "requests.",
    )
    scale_down_delay_s: StartupSeconds = Field(
        default=300.0,
        description="Autoscaling: a replica is drained when fewer have been wanted for "
        "so many seconds; the default is that of Kubernetes' HPA.",
    )

    @property
    def gpus_per_replica(self) -> int:
        """GPUs of one replica."""
        stages = self.pipeline_parallel_size
        return stages * self.tensor_parallel_size * self.data_parallel_size
