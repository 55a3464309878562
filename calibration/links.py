"""Links between replicas by GPU; the numbers, each with its source, are in the data."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Final

from calibration.hardware import Gpu
from calibration.model_shape import ModelShape
from sim.handover import KvLinks
from sim.units import NS_PER_US

_CATALOGUE: Final = Path(__file__).parent / "data" / "links.toml"


@cache
def _catalogue() -> dict[str, dict[str, float]]:
    return tomllib.loads(_CATALOGUE.read_text(encoding="utf-8"))


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
    known = _catalogue()[device.name]
    copies = max(tp // shape.num_kv_heads, 1)
    return KvLinks(
        latency_ns=round(known["p2p_latency_us"] * NS_PER_US),
        gpu_bytes_per_token=shape.kv_bytes_per_token(kv_dtype) * copies / tp,
        gpus=tp,
        node_bytes_per_s=device.nvlink_bandwidth_bytes_per_s * scale,
        network_bytes_per_s=known["network_bandwidth_bytes_per_s"] * scale,
        replicas_per_node=max(gpus_per_node // tp, 1),
    )
