"""GPUs of an expert-parallel group and the nodes they sit in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EpTopology:
    """An expert-parallel group.

    Attributes:
        gpus: EP size.
        gpus_per_node: GPUs of a node; a group smaller than it is in one node.
    """

    gpus: int
    gpus_per_node: int

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit.

        Raises:
            ConfigError: If they are not positive, or a node would be split.
        """
        if self.gpus < 1 or self.gpus_per_node < 1:
            raise ConfigError(
                f"gpus = {self.gpus}, gpus_per_node = {self.gpus_per_node}:"
                " must be >= 1"
            )
        if self.gpus > self.gpus_per_node and self.gpus % self.gpus_per_node:
            raise ConfigError(
                f"gpus = {self.gpus}: must be a multiple of gpus_per_node"
                f" ({self.gpus_per_node})"
            )

    @property
    def nodes(self) -> int:
        """Nodes the group spans."""
        return max(self.gpus // self.gpus_per_node, 1)

    @property
    def node_of(self) -> npt.NDArray[np.int64]:
        """Node of each GPU, shape (gpus,)."""
        return np.arange(self.gpus) // (self.gpus // self.nodes)
