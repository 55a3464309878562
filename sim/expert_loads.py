"""How evenly experts and the GPUs that hold them are loaded, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.routing_stats import Float
from sim.table import Table


@dataclass(frozen=True, slots=True, eq=False)
class ExpertLoads:
    """Loads that every iteration of a run is priced with.

    Attributes:
        strategy: What placed the experts.
        experts: Share of a layer's token-expert pairs per expert, shape (L, E).
        gpus: The same per GPU of a replica, shape (L, G).
    """

    strategy: str
    experts: Float
    gpus: Float


def experts_table(experts: Float) -> Table:
    """Load of every expert in every layer, relative to the mean, one row each."""
    return Table(_columns(experts, "expert"))


def loads_table(gpus: Mapping[str, Float]) -> Table:
    """Load of every GPU in every layer by strategy, relative to the mean."""
    parts = [
        {"strategy": np.full(shares.size, strategy)} | _columns(shares, "gpu")
        for strategy, shares in gpus.items()
    ]
    return Table(
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    )


def _columns(shares: Float, unit: str) -> dict[str, npt.NDArray[Any]]:
    layer, index = np.indices(shares.shape)
    return {
        "layer": layer.ravel(),
        unit: index.ravel(),
        "relative_load": (shares * shares.shape[1]).ravel(),
    }
