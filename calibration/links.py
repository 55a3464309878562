"""Links between GPUs of different nodes, and those that carry KV caches."""

from __future__ import annotations

from typing import Final

from calibration.hardware import Gpu
from calibration.model_shape import ModelShape
from sim.handover import KvLinks

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
