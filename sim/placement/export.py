"""Placements as the files that serving engines read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from sim.placement.placement import ExpertPlacement


def sglang(placement: ExpertPlacement) -> dict[str, Any]:
    """For SGLang's ``--init-expert-location``."""
    return {"physical_to_logical_map": placement.phy_to_log.tolist()}


def vllm(placement: ExpertPlacement) -> dict[str, Any]:
    """An expert map as vLLM-Ascend's ``expert_map_path`` reads it."""
    room = placement.slots_per_gpu
    layers = []
    for number, slots in enumerate(placement.phy_to_log.tolist()):
        devices = [
            {"device_id": g, "device_expert": slots[g * room : (g + 1) * room]}
            for g in range(placement.gpus)
        ]
        layers.append(
            {
                "layer_id": number,
                "device_count": placement.gpus,
                "device_list": devices,
            }
        )
    return {"moe_layer_count": len(layers), "layer_list": layers}


EXPORTS: Mapping[str, Callable[[ExpertPlacement], dict[str, Any]]] = MappingProxyType(
    {"sglang": sglang, "vllm": vllm}
)
"""Every export format by its name."""
