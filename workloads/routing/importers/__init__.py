"""Readers of routing statistics: a new format is one file here and one line below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.routing_stats import RoutingStats
from workloads.routing.importers.coactivation_json import read_coactivation
from workloads.routing.importers.exflow_csv import read_exflow
from workloads.routing.importers.npz import read_arrays
from workloads.routing.importers.options import ImportOptions
from workloads.routing.importers.sglang_json import read_sglang
from workloads.routing.importers.stats_json import read_stats
from workloads.routing.importers.vllm_log import read_vllm_log
from workloads.routing.load_file import read_json

Reader = Callable[[Path, ImportOptions], RoutingStats]

READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "stats": read_stats,
        "sglang": read_sglang,
        "coactivation": read_coactivation,
        "exflow": read_exflow,
        "npz": read_arrays,
        "vllm-log": read_vllm_log,
    }
)
"""Every format by its name."""

_BY_SUFFIX = {
    ".csv": "exflow",
    ".npz": "npz",
    ".npy": "npz",
    ".log": "vllm-log",
    ".txt": "vllm-log",
}


def read_routing(path: Path, options: ImportOptions | None = None) -> RoutingStats:
    """Routing statistics from a file, whose format its name and content tell.

    Raises:
        ConfigError: If it cannot be read or is not what it seems; never a traceback.
    """
    return READERS[_format(path)](path, options or ImportOptions())


def _format(path: Path) -> str:
    known = _BY_SUFFIX.get(path.suffix.lower())
    if known is not None:
        return known
    document = read_json(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{one_line(str(path))}: must be a JSON object")
    if "logical_count" in document:
        return "sglang"
    layers = document.get("layers")
    if isinstance(layers, list) and layers and isinstance(layers[0], dict):
        return "coactivation"
    return "stats"
