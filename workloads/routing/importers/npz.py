"""Arrays in npz: the statistics themselves, or routed tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.routing_stats import RoutingStats, make_stats
from workloads.routing.importers.exflow_csv import routed_stats
from workloads.routing.importers.options import ImportOptions
from workloads.routing.load_file import numbers, read_npz


def read_arrays(path: Path, options: ImportOptions) -> RoutingStats:
    """Statistics of an npz with ``load`` [L, E] and ``top_k``, or ``routed``.

    ``routed`` (or the only array of an npy) holds expert numbers, shape (tokens,
    layers) or (tokens, layers, top_k); ``transition`` and ``coactivation`` may stand
    beside ``load``.

    Raises:
        ConfigError: If the arrays are not these, or the file holds Python objects.
    """
    where, arrays = one_line(str(path)), read_npz(path)
    routed = arrays.get("routed", arrays.get("array"))
    if routed is not None:
        table = numbers(routed, where, "routed")
        table = table[:, :, None] if table.ndim == 2 else table
        if table.ndim != 3 or not table.size:
            raise ConfigError(f"{where}: routed: must be (tokens, layers[, top_k])")
        return routed_stats(table, where)
    if "load" not in arrays:
        raise ConfigError(f"{where}: holds neither load nor routed")
    top_k = options.top_k
    if "top_k" in arrays:
        stated = numbers(arrays["top_k"], where, "top_k")
        if stated.size != 1 or not np.isfinite(stated).all():
            raise ConfigError(f"{where}: top_k: must be one integer")
        top_k = int(stated.reshape(-1)[0])
    load = numbers(arrays["load"], where, "load")
    extra = {
        name: numbers(arrays[name], where, name) if name in arrays else None
        for name in ("transition", "coactivation")
    }
    k = options.required_top_k(where) if top_k is None else top_k
    return make_stats(load, k, extra["transition"], extra["coactivation"], where=where)
