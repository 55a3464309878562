"""Our own format: num_layers, num_experts, top_k, load, transition, coactivation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sim.config_errors import did_you_mean, one_line
from sim.errors import ConfigError
from sim.files import write_json_atomic
from sim.routing_stats import RoutingStats, make_stats
from workloads.routing.importers.options import ImportOptions
from workloads.routing.load_file import numbers, read_json, whole

_REQUIRED = ("num_layers", "num_experts", "top_k", "load")
_KNOWN = (*_REQUIRED, "transition", "coactivation", "domain")


def read_stats(path: Path, options: ImportOptions) -> RoutingStats:
    """Statistics of ``{"num_layers", "num_experts", "top_k", "load": [L][E], ...}``.

    Raises:
        ConfigError: On a missing or unknown key, a wrong shape or a wrong sum.
    """
    where, document = one_line(str(path)), read_json(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: must be a JSON object")
    for key in document:
        if key not in _KNOWN:
            hint = did_you_mean(key, _KNOWN, '"')
            raise ConfigError(
                f"{where}: unknown key {one_line(str(key))!r}{hint};"
                f" allowed: {', '.join(_KNOWN)}"
            )
    for key in _REQUIRED:
        if key not in document:
            raise ConfigError(f"{where}: misses {key}")
    layers = whole(document["num_layers"], where, "num_layers")
    experts = whole(document["num_experts"], where, "num_experts")
    load = numbers(document["load"], where, "load")
    if load.shape != (layers, experts):
        got = "x".join(map(str, load.shape))
        raise ConfigError(f"{where}: load: shape {got}; must be {layers}x{experts}")

    def optional(key: str) -> Any:
        value = document.get(key)
        return None if value is None else numbers(value, where, key)

    transition = optional("transition")
    if layers == 1 and transition is not None and not transition.size:
        transition = None
    return make_stats(
        load,
        whole(document["top_k"], where, "top_k"),
        transition,
        optional("coactivation"),
        domain=str(document.get("domain", "")),
        where=where,
    )


def write_stats(path: Path, stats: RoutingStats) -> None:
    """Write statistics as :func:`read_stats` reads them.

    Raises:
        ConfigError: If the file cannot be written.
    """
    document: dict[str, Any] = {
        "num_layers": stats.num_layers,
        "num_experts": stats.num_experts,
        "top_k": stats.top_k,
        "domain": stats.domain,
        "load": stats.load,
    }
    for key in ("transition", "coactivation"):
        if getattr(stats, key) is not None:
            document[key] = getattr(stats, key)
    write_json_atomic(path, document)
