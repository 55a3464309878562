"""Links between GPUs of different nodes, those that carry KV caches, and pipelines'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from calibration.hardware import Gpu
from calibration.model_shape import ModelShape
from sim.handover import KvLinks
from sim.kernel_times import Timed

_ACTIVATION_BYTES: Final = 2  # bfloat16
P2P_LATENCY_NS: Final = 10_000
"""Latency of a message between GPUs: ``p2p_latency`` of every systems/<gpu>.yaml of
NVIDIA aiconfigurator-core 0.12.0 (Apache-2.0), which calls it an unofficial correction
based on observations."""


def kv_links(
    device: Gpu,
    shape: ModelShape,
    kv_dtype: str,
    *,
    tp: int,
    gpus_per_node: int,
    scale: float = 1.0,
) -> KvLinks:
    """Links for the KV cache of a model on replicas of ``tp`` GPUs.

    Every GPU holds and sends its share of the heads, or a copy where there are fewer
    heads than GPUs; latents are whole on each.

    Args:
        device: The GPU.
        shape: The model.
        kv_dtype: KV cache format.
        tp: GPUs of a replica.
        gpus_per_node: GPUs of a node.
        scale: Factor on all bandwidths.
    """
    copies = max(tp // shape.num_kv_heads, 1)
    return KvLinks(
        latency_ns=P2P_LATENCY_NS,
        gpu_bytes_per_token=shape.kv_bytes_per_token(kv_dtype) * copies / tp,
        gpus=tp,
        node_bytes_per_s=device.nvlink_bandwidth_bytes_per_s * scale,
        network_bytes_per_s=device.nic_bandwidth_bytes_per_s * scale,
        replicas_per_node=max(gpus_per_node // tp, 1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLinks:
    """Implements :class:`sim.pipeline_cost.StageLinks`.

    Hidden state and residual go on, every GPU of a stage sends its share to its
    counterpart over a link of its own, and the receiving group gathers them (vLLM's
    ``send_tensor_dict`` with ``all_gather_group``). Sends do not hold up the sender.

    Attributes:
        row_bytes: Hidden state and residual of a row.
        gpus: GPUs of a stage.
        stages_per_node: Stages are placed on nodes in order.
        node_bytes_per_s: Bandwidth of one GPU inside a node, one direction.
        network_bytes_per_s: The same between nodes.
        gather: Time to gather rows over the GPUs of a stage, from the tables.
    """

    row_bytes: int
    gpus: int
    stages_per_node: int
    node_bytes_per_s: float
    network_bytes_per_s: float
    gather: Callable[[int], Timed]

    def send_ns(self, stage: int, rows: int) -> int:
        """Latency + bytes over bandwidth, and the gather."""
        near = (stage + 1) % self.stages_per_node != 0
        bandwidth = self.node_bytes_per_s if near else self.network_bytes_per_s
        sent_ns = rows * self.row_bytes / self.gpus * 1e9 / bandwidth
        return P2P_LATENCY_NS + round(sent_ns) + self.gather(rows).ns

    def send_bytes(self, rows: int) -> int:
        """Once to the next stage, then from every GPU there to the others."""
        return rows * self.row_bytes * self.gpus


def pipeline_links(
    device: Gpu,
    shape: ModelShape,
    gather: Callable[[int], Timed],
    *,
    tp: int,
    stages_per_node: int,
    scale: float = 1.0,
) -> PipelineLinks:
    """Links between stages of ``tp`` GPUs; ``scale`` is a factor on all bandwidths."""
    return PipelineLinks(
        row_bytes=2 * shape.hidden_size * _ACTIVATION_BYTES,
        gpus=tp,
        stages_per_node=stages_per_node,
        node_bytes_per_s=device.nvlink_bandwidth_bytes_per_s * scale,
        network_bytes_per_s=device.nic_bandwidth_bytes_per_s * scale,
        gather=gather,
    )
