"""Heat and co-activated pairs per layer, as doramirdor/mbolt publishes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.routing_stats import RoutingStats, make_stats
from workloads.routing.importers.options import ImportOptions
from workloads.routing.load_file import MOST, numbers, read_json


def read_coactivation(path: Path, options: ImportOptions) -> RoutingStats:
    """Statistics of ``{"k", "layers": [{"heat": [E], "pairs": [[i, j, count, ..]]}]}``.

    Pairs that the file leaves out count as never selected together.

    Raises:
        ConfigError: If the layers do not hold that.
    """
    where, document = one_line(str(path)), read_json(path)
    layers = document.get("layers") if isinstance(document, dict) else None
    if not isinstance(layers, list) or not all(_has_heat(entry) for entry in layers):
        raise ConfigError(f'{where}: layers: must be objects with "heat"')
    heat = numbers([entry["heat"] for entry in layers], where, "heat")
    if not (np.abs(heat) <= MOST).all():  # NaN too
        raise ConfigError(f"{where}: heat: must be counts <= {MOST:g}")
    if heat.ndim != 2 or (heat.sum(axis=1) <= 0).any():
        raise ConfigError(f"{where}: heat: every layer needs counts that sum to > 0")
    together = None
    if all(entry.get("pairs") for entry in layers):
        together = np.stack(
            [_together(e["pairs"], heat.shape[1], where) for e in layers]
        )
    stated = document.get("k")
    top_k = stated if isinstance(stated, int) else options.required_top_k(where)
    shares = heat / heat.sum(axis=1, keepdims=True)
    return make_stats(shares, top_k, None, together, where=where)


def _has_heat(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("heat"), list)


def _together(pairs: Any, experts: int, where: str) -> Any:
    table = numbers(pairs, where, "pairs")
    bounded = (np.abs(table) <= MOST).all()
    fits = table.ndim == 2 and table.shape[1] >= 3 and bounded
    if not fits or table[:, :2].min() < 0 or table[:, :2].max() >= experts:
        raise ConfigError(f"{where}: pairs: must be [expert, expert, count, ...]")
    first, second = table[:, 0].astype(int), table[:, 1].astype(int)
    out = np.zeros((experts, experts))
    np.add.at(out, (first, second), table[:, 2])
    np.add.at(out, (second, first), table[:, 2])
    return out
