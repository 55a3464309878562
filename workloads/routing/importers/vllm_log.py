"""vLLM's EPLB log: balancedness per step, turned into a skew with that imbalance."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np

from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.input_file import read_bytes
from sim.routing_stats import RoutingStats
from workloads.routing.importers.options import ImportOptions
from workloads.routing.popularity import lognormal_load
from workloads.routing.presets import balanced, preset
from workloads.streams import stream

# vLLM logs avg_tokens, max_tokens and balancedness = mean / max over ranks
# (EPLBConfig.log_balancedness).
_LINE: Final = re.compile(r"balancedness\s*=\s*([0-9.eE+-]+)")
_WIDEST_SIGMA: Final = 3.0


def balancedness(text: str) -> list[float]:
    """Every logged balancedness, in order."""
    found = []
    for match in _LINE.finditer(text):
        try:
            found.append(float(match.group(1).rstrip(".")))
        except ValueError:
            continue
    return found


def read_vllm_log(path: Path, options: ImportOptions) -> RoutingStats:
    """Statistics of a model whose ranks were as unbalanced as the log says.

    The log has no counts per expert: their spread is the lognormal sigma at which
    contiguous experts on that many GPUs have the logged mean balancedness, and the
    transitions are the preset's. Treat the result as a what-if, not a profile.

    Raises:
        ConfigError: If the log has no balancedness, or model or EP size are not given.
    """
    where = one_line(str(path))
    text = read_bytes(path).decode("utf-8", errors="replace")
    logged = [value for value in balancedness(text) if 0.0 < value <= 1.0]
    if not logged:
        raise ConfigError(f"{where}: no EPLB line with balancedness in (0, 1]")
    if options.model is None or options.gpus is None:
        raise ConfigError(f"{where}: a log needs --model and --gpus of its run")
    model = preset(options.model)
    if model.experts % options.gpus:
        raise ConfigError(
            f"--gpus = {options.gpus}: must divide the {model.experts} experts"
        )
    par = 1.0 / float(np.mean(logged))
    low, high = 0.0, _WIDEST_SIGMA
    for _ in range(40):
        sigma = (low + high) / 2
        load = _load(model.layers, model.experts, sigma, options.seed)
        ranks = load.reshape(model.layers, options.gpus, -1).sum(axis=2)
        above = float((ranks.max(axis=1) * options.gpus).mean()) > par
        low, high = (low, sigma) if above else (sigma, high)
    return balanced(model.stats(options.seed), load)


def _load(layers: int, experts: int, sigma: float, seed: int) -> np.ndarray:
    return lognormal_load(stream(seed, "routing/log"), layers, experts, sigma)
