"""Where experts live: a table of physical slots, replicas included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.errors import ConfigError
from sim.routing_stats import Float

Slots = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class ExpertPlacement:
    """Expert in every physical slot of every layer.

    Attributes:
        phy_to_log: Expert per slot, shape (L, P); slot s is on GPU s // (P / G).
        num_experts: Experts per layer; each has at least one slot.
        gpus: G.
    """

    phy_to_log: Slots
    num_experts: int
    gpus: int

    def __post_init__(self) -> None:
        """Refuse a table in which an expert has no slot.

        Raises:
            ConfigError: Also when the GPUs do not divide the slots.
        """
        slots = self.phy_to_log.shape[1]
        if slots % self.gpus:
            raise ConfigError(f"{slots} slots: must be a multiple of {self.gpus} GPUs")
        if (self.phy_to_log < 0).any() or (self.phy_to_log >= self.num_experts).any():
            raise ConfigError(f"placement: experts must be 0 to {self.num_experts - 1}")
        if (self.replicas() < 1).any():
            layer, expert = np.argwhere(self.replicas() < 1)[0]
            raise ConfigError(f"placement: layer {layer}: expert {expert} has no slot")

    @property
    def slots_per_gpu(self) -> int:
        """Slots of one GPU in one layer."""
        return int(self.phy_to_log.shape[1]) // self.gpus

    def on_gpu(self) -> npt.NDArray[np.int64]:
        """Copies of each expert on each GPU, shape (L, E, G)."""
        layers, slots = self.phy_to_log.shape
        out = np.zeros((layers, self.num_experts, self.gpus), dtype=np.int64)
        gpu = np.arange(slots) // self.slots_per_gpu
        np.add.at(out, (np.arange(layers)[:, None], self.phy_to_log, gpu[None, :]), 1)
        return out

    def replicas(self) -> npt.NDArray[np.int64]:
        """Copies of each expert, shape (L, E)."""
        layers = self.phy_to_log.shape[0]
        keys = self.phy_to_log + np.arange(layers)[:, None] * self.num_experts
        counts = np.bincount(keys.ravel(), minlength=layers * self.num_experts)
        return counts.reshape(layers, self.num_experts)

    def even_shares(self) -> Float:
        """Share of an expert's tokens on each GPU at an even split, (L, E, G)."""
        copies = self.on_gpu()
        shares: Float = copies / copies.sum(axis=2, keepdims=True)
        return shares


def from_gpu_of(gpu_of: npt.NDArray[np.int64], gpus: int) -> ExpertPlacement:
    """The placement that holds expert e of layer l on GPU gpu_of[l, e].

    Experts of a GPU are in increasing order.

    Raises:
        ConfigError: If the GPUs do not hold equally many.
    """
    experts = gpu_of.shape[1]
    counts = np.stack([np.bincount(row, minlength=gpus) for row in gpu_of])
    if (counts != experts // gpus).any() or experts % gpus:
        raise ConfigError(f"placement: every GPU must hold {experts}/{gpus} experts")
    order = np.argsort(gpu_of, axis=1, kind="stable").astype(np.int32)
    return ExpertPlacement(order, experts, gpus)


def migrated_slots(old: ExpertPlacement, new: ExpertPlacement) -> int:
    """Slots to fill over the links: experts new on a GPU, over all layers.

    An expert that stays on its GPU is not moved, whatever its slot.
    """
    if old.gpus != new.gpus or old.num_experts != new.num_experts:
        return int(new.phy_to_log.size)
    arrived = (new.on_gpu() > 0) & (old.on_gpu() == 0)
    return int(arrived.sum())
