"""Run a strategy and put its bound, gap, time and migration beside its placement."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from sim.config_errors import one_of
from sim.errors import ConfigError
from sim.placement import PLACEMENTS
from sim.placement.bounds import affinity_bound, balance_bound
from sim.placement.metrics import PlacementMetrics, evaluate
from sim.placement.placement import ExpertPlacement, from_gpu_of, migrated_slots
from sim.placement.strategy import Placed, PlacementOptions, Strategy
from sim.placement.topology import EpTopology
from sim.routing_stats import RoutingStats

_PROVEN_GAP = 1e-4  # relative, at which HiGHS stops


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementResult:
    """A placement, how good it is and how good it could be.

    Attributes:
        strategy: Its name in the registry.
        placement: Where experts live.
        metrics: Measured on the statistics it was fitted to (changed by a router-side
            strategy).
        stats: Those statistics.
        objective_name: What was maximised.
        objective: Its value.
        upper_bound: No placement exceeds it.
        gap: (upper_bound - objective) / upper_bound: at most so far from the optimum.
        solve_seconds: Wall time of the strategy.
        migrated_slots: Expert copies to move from the previous placement.
        changes_output: Whether the model's output changes.
    """

    strategy: str
    placement: ExpertPlacement
    metrics: PlacementMetrics
    stats: RoutingStats
    objective_name: str
    objective: float
    upper_bound: float
    gap: float
    solve_seconds: float
    migrated_slots: int
    changes_output: bool

    @property
    def proven(self) -> bool:
        """Whether the bound proves that no placement is better."""
        return self.gap <= _PROVEN_GAP


def check_problem(
    name: str, stats: RoutingStats, topology: EpTopology, options: PlacementOptions
) -> Strategy:
    """The strategy of a name, if it can run on this problem.

    Raises:
        ConfigError: On an unknown name, missing statistics, experts that GPUs do not
            divide, or copies that do not fit.
    """
    strategy = PLACEMENTS.get(name)
    if strategy is None:
        raise ConfigError(f'strategy "{name}": {one_of(name, PLACEMENTS)}')
    experts, gpus, extra = stats.num_experts, topology.gpus, options.redundant_experts
    if experts % gpus and not strategy.replicas:
        raise ConfigError(
            f"{experts} experts on {gpus} GPUs: the number of GPUs must divide the"
            " experts"
        )
    if (experts + extra) % gpus:
        raise ConfigError(
            f"{experts} experts and {extra} redundant ones on {gpus} GPUs: the number"
            " of GPUs must divide their sum"
        )
    if experts + extra > experts * gpus:
        raise ConfigError(
            f"redundant experts = {extra}: more copies than slots for them: at most"
            f" {experts * (gpus - 1)}, one of each expert per further GPU"
        )
    for needed in strategy.needs:
        if getattr(stats, needed) is None:
            raise ConfigError(f"strategy {name}: the statistics have no {needed}")
    return strategy


def solve(
    name: str,
    stats: RoutingStats,
    topology: EpTopology,
    options: PlacementOptions | None = None,
    *,
    rng: np.random.Generator,
    previous: ExpertPlacement | None = None,
) -> PlacementResult:
    """Place experts by a strategy of the registry.

    Args:
        name: Key of ``PLACEMENTS``.
        stats: What to fit to.
        topology: GPUs and nodes.
        options: Options of strategies; redundant experts count for those that can
            use them.
        rng: Randomness of the strategy, if it has any.
        previous: Placement to migrate from; contiguous blocks if None.

    Raises:
        ConfigError: As :func:`check_problem`.
    """
    options = options or PlacementOptions()
    strategy = check_problem(name, stats, topology, options)
    start = time.perf_counter()
    placed = strategy.place(stats, topology, options, rng)
    seconds = time.perf_counter() - start
    judged = placed.stats or stats
    metrics = evaluate(placed.placement, judged, topology)
    objective, bound = _objective(placed, metrics, judged, topology)
    if previous is None:
        previous = _linear(stats, topology)
    moved = 0 if previous is None else migrated_slots(previous, placed.placement)
    return PlacementResult(
        strategy=name,
        placement=placed.placement,
        metrics=metrics,
        stats=judged,
        objective_name=placed.objective_name,
        objective=objective,
        upper_bound=bound,
        gap=max(bound - objective, 0.0) / bound if bound > 0 else 0.0,
        solve_seconds=seconds,
        migrated_slots=moved,
        changes_output=strategy.changes_output,
    )


def _linear(stats: RoutingStats, topology: EpTopology) -> ExpertPlacement | None:
    if stats.num_experts % topology.gpus:
        return None
    row = np.arange(stats.num_experts) // (stats.num_experts // topology.gpus)
    return from_gpu_of(np.tile(row, (stats.num_layers, 1)), topology.gpus)


def _objective(
    placed: Placed,
    metrics: PlacementMetrics,
    stats: RoutingStats,
    topology: EpTopology,
) -> tuple[float, float]:
    """Value and bound of what was maximised."""
    value, bound = placed.objective, placed.upper_bound
    if placed.objective_name == "affinity":
        value = metrics.affinity if value is None else value
        if bound is None:
            bound = affinity_bound(stats.following(), topology.gpus)
    elif placed.objective_name == "balancedness":
        value = 1.0 / metrics.load_par
        slots = placed.placement.phy_to_log.shape[1]
        bound = balance_bound(stats.load, topology.gpus, slots)
    if value is None or bound is None:
        raise ValueError(f"{placed.objective_name}: no value")
    return value, max(bound, value)
