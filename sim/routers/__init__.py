"""Routers by name: which replica receives the next request.

A new one is one file here and one line in the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from sim.routers.at_random import AtRandom
from sim.routers.least_outstanding import (
    LeastOutstandingRequests,
    LeastOutstandingTokens,
)
from sim.routers.power_of_two import PowerOfTwoChoices
from sim.routers.prefix_affinity import PrefixAffinity
from sim.routers.round_robin import RoundRobin
from sim.routers.router import Loads, Router

__all__ = ["ROUTERS", "Loads", "MakeRouter", "Router"]


class MakeRouter(Protocol):
    """Makes a router that has routed nothing yet."""

    def __call__(self, seed: int = 0) -> Router:
        """``seed`` is for those that draw."""
        ...


ROUTERS: Mapping[str, MakeRouter] = MappingProxyType(
    {
        "round-robin": lambda seed=0: RoundRobin(),
        "random": AtRandom,
        "least-outstanding-requests": lambda seed=0: LeastOutstandingRequests(),
        "least-outstanding-tokens": lambda seed=0: LeastOutstandingTokens(),
        "power-of-two-choices": PowerOfTwoChoices,
        "prefix-affinity": lambda seed=0: PrefixAffinity(),
    }
)
"""Every router by its configuration name."""
