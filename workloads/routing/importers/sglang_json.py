"""SGLang's expert-distribution dumps, as JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.routing_stats import RoutingStats, make_stats
from workloads.routing.importers.options import ImportOptions
from workloads.routing.load_file import MOST, numbers, read_json


def read_sglang(path: Path, options: ImportOptions) -> RoutingStats:
    """Popularity of ``{"logical_count": [L][E]}`` or ``[steps][L][E]``.

    The format ``--init-expert-location`` takes. Layers without a token (dense ones)
    are left out.

    Raises:
        ConfigError: If it holds no such counts.
    """
    where, document = one_line(str(path)), read_json(path)
    if not isinstance(document, dict) or "logical_count" not in document:
        raise ConfigError(f"{where}: misses logical_count")
    counts = numbers(document["logical_count"], where, "logical_count")
    if not (np.abs(counts) <= MOST).all():  # NaN too
        raise ConfigError(f"{where}: logical_count: must be counts <= {MOST:g}")
    if counts.ndim == 3:
        counts = counts.sum(axis=0)
    if counts.ndim == 2:
        counts = counts[counts.sum(axis=1) != 0]
    if counts.ndim != 2 or not counts.size or (counts.sum(axis=1) <= 0).any():
        raise ConfigError(f"{where}: logical_count: must be [L][E] counts >= 0")
    shares = counts / counts.sum(axis=1, keepdims=True)
    return make_stats(shares, options.required_top_k(where), where=where)
