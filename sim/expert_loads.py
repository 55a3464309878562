"""How evenly experts and the GPUs that hold them are loaded, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sim.routing_stats import Float


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


def experts_frame(experts: Float) -> pd.DataFrame:
    """Load of every expert in every layer, relative to the mean, one row each."""
    return _frame(experts, "expert")


def loads_frame(gpus: Mapping[str, Float]) -> pd.DataFrame:
    """Load of every GPU in every layer by strategy, relative to the mean."""
    frames = []
    for strategy, shares in gpus.items():
        frame = _frame(shares, "gpu")
        frame.insert(0, "strategy", strategy)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _frame(shares: Float, unit: str) -> pd.DataFrame:
    layer, index = np.indices(shares.shape)
    return pd.DataFrame(
        {
            "layer": layer.ravel(),
            unit: index.ravel(),
            "relative_load": (shares * shares.shape[1]).ravel(),
        }
    )
