"""Placements of experts compared: strategies on one set of routing statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from calibration.kernels.expert_parallel import DISPATCH_BYTES
from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.placement.dispatch import DISPATCHES
from sim.placement.metrics import PlacementMetrics, evaluate, gpu_loads
from sim.placement.solve import PlacementResult, check_problem, solve
from sim.placement.strategy import PlacementOptions
from sim.placement.topology import EpTopology
from sim.routing_stats import RoutingStats
from workloads.routing.importers import read_routing
from workloads.routing.importers.options import ImportOptions
from workloads.routing.presets import preset, preset_names
from workloads.streams import stream

_METRICS: Final = (
    "affinity",
    "load_par",
    "cross_gpu_share",
    "cross_node_share",
)
_FURTHER: Final = (
    "load_par_max",
    "coactivation",
    "distinct_gpus",
    "dispatch_sends",
    "node_sends",
    "worst_link",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceProblem:
    """What is placed, where, and what it is judged by.

    Attributes:
        stats: Routing to fit to.
        topology: GPUs and nodes.
        strategies: Names in the registry; a repeated one counts once.
        options: Options of the strategies.
        dispatch: Which copy of a replicated expert a token goes to.
        eval_stats: Other routing to judge by as well, or None.
        hidden_size: Width of a token's state, for bytes; None if unknown.
        seed: Randomness of strategies.
    """

    stats: RoutingStats
    topology: EpTopology
    strategies: Sequence[str]
    options: PlacementOptions
    dispatch: str = "random"
    eval_stats: RoutingStats | None = None
    hidden_size: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be placed, before anything is solved.

        Raises:
            ConfigError: With what is wrong.
        """
        if not self.strategies:
            raise ConfigError("place: needs at least one strategy")
        for name in self.strategies:
            check_problem(name, self.stats, self.topology, self.options)
        judged = self.eval_stats
        if judged is not None and judged.load.shape != self.stats.load.shape:
            raise ConfigError(
                f"--eval: {judged.num_layers} layers of {judged.num_experts} experts;"
                f" must be {self.stats.num_layers} of {self.stats.num_experts}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRow:
    """A strategy's result and how it does where it was not fitted.

    Attributes:
        result: The result.
        metrics: With the dispatch policy of the problem.
        eval_metrics: The same on the other routing, or None.
        loads: Share of load per layer and GPU, (L, G).
    """

    result: PlacementResult
    metrics: PlacementMetrics
    eval_metrics: PlacementMetrics | None
    loads: np.ndarray

    def document(self, hidden_size: int | None = None) -> dict[str, Any]:
        """The row as plain JSON values."""
        result = self.result
        row: dict[str, Any] = {"strategy": result.strategy}
        row |= {name: getattr(self.metrics, name) for name in _METRICS}
        row |= {
            "upper_bound": result.upper_bound,
            "gap": result.gap,
            "solve_seconds": result.solve_seconds,
            "objective": result.objective,
            "objective_name": result.objective_name,
            "migrated_slots": result.migrated_slots,
            "changes_output": result.changes_output,
        }
        row |= {name: getattr(self.metrics, name) for name in _FURTHER}
        if hidden_size is not None:
            row["alltoall_bytes_per_token"] = alltoall_bytes(
                self.metrics, result.stats.num_layers, hidden_size
            )
        if self.eval_metrics is not None:
            row |= {f"eval_{n}": getattr(self.eval_metrics, n) for n in _METRICS}
        row["placement"] = result.placement.phy_to_log.tolist()
        return row


def alltoall_bytes(metrics: PlacementMetrics, layers: int, hidden_size: int) -> float:
    """Bytes one token sends to other GPUs and gets back in all layers (ep_home).

    Dispatch in fp8 with scales, combine in bfloat16, each once per other GPU.
    """
    each = hidden_size * (DISPATCH_BYTES["fp8"] + DISPATCH_BYTES["bfloat16"])
    return layers * metrics.dispatch_sends * each


def load_stats(
    source: str, options: ImportOptions, domain: str | None = None
) -> RoutingStats:
    """Statistics of a file, or of a preset by its name.

    Raises:
        ConfigError: If it is neither.
    """
    path = Path(source)
    try:
        exists = path.exists()
    except (OSError, ValueError):
        exists = False
    if exists:
        return read_routing(path, options)
    try:
        return preset(source).stats(options.seed, domain=domain, groups=options.gpus)
    except ConfigError:
        if domain is not None and "/" not in source and not path.suffix:
            raise
        names = ", ".join(preset_names())
        raise ConfigError(
            f"{one_line(source)}: no such file, and no preset: {names}"
        ) from None


def place(
    problem: PlaceProblem, on_done: Callable[[], None] = lambda: None
) -> list[PlacedRow]:
    """Solve every strategy of a problem.

    Raises:
        ConfigError: If the problem does not fit together.
    """
    problem.check()
    rows = []
    for name in dict.fromkeys(problem.strategies):
        rng = stream(problem.seed, f"placement/{name}")
        result = solve(name, problem.stats, problem.topology, problem.options, rng=rng)
        rows.append(_row(problem, result))
        on_done()
    return rows


def _row(problem: PlaceProblem, result: PlacementResult) -> PlacedRow:
    dispatch = DISPATCHES[problem.dispatch]
    shares = dispatch(result.placement, problem.topology, result.stats.load)
    judged = problem.eval_stats
    return PlacedRow(
        result=result,
        metrics=evaluate(result.placement, result.stats, problem.topology, shares),
        eval_metrics=(
            None
            if judged is None
            else evaluate(result.placement, judged, problem.topology, shares)
        ),
        loads=gpu_loads(result.stats, shares),
    )
