"""Laws that every run obeys, watched from its events; a law is one class here.

A new one is a class in the file of its family and a line in the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sim.checks.availability import Availability
from sim.checks.batches import (
    BatchLimits,
    Progress,
    StallFreeDecoding,
    WorkConservation,
)
from sim.checks.check import Check
from sim.checks.checker import Checker
from sim.checks.clocks import BusyTime, ClockOrder
from sim.checks.costs import CostConservation, StepCosts
from sim.checks.kv_blocks import KvConservation, KvSufficiency
from sim.checks.ledger import LIFECYCLE
from sim.checks.littles_law import LittlesLaw
from sim.checks.prefix_reuse import PrefixReuse
from sim.checks.requests import (
    Causality,
    ClientConcurrency,
    RequestConservation,
)
from sim.checks.swaps import SwapConservation
from sim.checks.tokens import LayersOnce, OutputExactness, TokenConservation
from sim.checks.transfers import TransferConservation

CHECKS: tuple[type[Check], ...] = (
    ClockOrder,
    Availability,
    TransferConservation,
    ClientConcurrency,
    WorkConservation,
    PrefixReuse,
    LayersOnce,
    BatchLimits,
    StallFreeDecoding,
    Progress,
    OutputExactness,
    RequestConservation,
    KvConservation,
    KvSufficiency,
    SwapConservation,
    StepCosts,
    Causality,
    TokenConservation,
    BusyTime,
    LittlesLaw,
    CostConservation,
)
"""Every law that is watched event by event, in the order they are held against one."""

INVARIANTS: Mapping[str, str] = MappingProxyType(
    {
        LIFECYCLE: "Requests take the transitions of the table, and end once.",
        "knowledge-boundary": "No policy reads what a server cannot know.",
        **{check.name: check.law for check in CHECKS},
    }
)
"""Name and law of all that is watched; those of results are in ``results``."""

__all__ = ["CHECKS", "INVARIANTS", "Checker", "run_checker"]


def run_checker() -> Checker:
    """An observer of one run that holds every law against every event."""
    return Checker(CHECKS)
