"""The role of a placement strategy, and what it is given and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from sim.placement.placement import ExpertPlacement
from sim.placement.topology import EpTopology
from sim.routing_stats import RoutingStats

Hierarchy = Literal["auto", "flat", "staged", "bipart"]
HIERARCHIES: Final[tuple[str, ...]] = get_args(Hierarchy)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementOptions:
    """What a strategy may be configured with.

    Attributes:
        redundant_experts: Extra slots per layer, for copies of popular experts.
        hierarchy: "auto" places on nodes first where there are several, "staged"
            always, "flat" never; "bipart" halves the GPUs again and again (exflow).
            For eplb: "staged" is its hierarchical, "flat" its global policy.
        solver: "lap" for heuristics with bounds, "milp" for the integer programs.
        time_limit_s: Of an integer program.
        max_par: Imbalance that joint may keep.
        expert_groups: Groups that a router limits tokens to (eplb, hierarchical).
    """

    redundant_experts: int = 0
    hierarchy: Hierarchy = "auto"
    solver: Literal["lap", "milp"] = "lap"
    time_limit_s: float = 60.0
    max_par: float = 1.05
    expert_groups: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What a strategy found.

    Attributes:
        placement: Where experts live.
        objective_name: What it maximised: "affinity", "balancedness" (mean / max GPU
            load), "coactivation", "link_balance" (1 - share of the busiest link).
        objective: Its value; None leaves it to the metrics of that name.
        upper_bound: No placement of this kind exceeds it; None where the caller's
            bound of that objective is to be used.
        stats: Routing after the strategy changed it (router-side); None if it did not.
    """

    placement: ExpertPlacement
    objective_name: str
    objective: float | None = None
    upper_bound: float | None = None
    stats: RoutingStats | None = None


Place = Callable[
    [RoutingStats, EpTopology, PlacementOptions, np.random.Generator], Placed
]
"""Find a placement; pure but for the generator it is given."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """An entry of the registry.

    Attributes:
        place: The strategy.
        summary: What it does, in a line.
        needs: Statistics it cannot do without: "transition", "coactivation".
        replicas: Whether it can use redundant experts.
        changes_output: Whether tokens meet other experts than the model chose.
    """

    place: Place
    summary: str
    needs: tuple[str, ...] = ()
    replicas: bool = False
    changes_output: bool = False
