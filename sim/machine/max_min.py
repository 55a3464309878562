"""Max-min fair rates of flows that share resources, in exact arithmetic.

A resource has a capacity in bytes/s; a flow at rate x takes ``weight * x`` of each
resource it uses and may have a cap of its own. An allocation is max-min fair if no
flow's rate can rise without lowering that of one which has no more (Bertsekas and
Gallager, Data Networks, section 6.5.2). Progressive filling finds it: all rates rise
together until a flow meets its cap or a resource is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

Rate = int | Fraction
"""Bytes/s, which is nanobytes per nanosecond."""


class Flow(NamedTuple):
    """Something to move, or a kernel that moves it.

    Attributes:
        size: What is to be done, in nanobytes (bytes * 10**9).
        uses: (resource, weight) of each resource it takes, weights >= 1.
        cap: The most it reaches (bytes/s), >= 1; None is whatever its resources allow.
    """

    size: int
    uses: tuple[tuple[int, int], ...]
    cap: Rate | None = None


def alone(flow: Flow, capacities: Sequence[int]) -> Rate:
    """Rate of a flow that shares its resources with nobody."""
    caps = [] if flow.cap is None else [flow.cap]
    return min([*caps, *(quotient(capacities[r], weight) for r, weight in flow.uses)])


def quotient(amount: Rate, by: Rate) -> Rate:
    """Exact ``amount / by``, an int where it is one."""
    if isinstance(amount, int) and isinstance(by, int) and not amount % by:
        return amount // by
    exact = Fraction(amount) / by
    return exact.numerator if exact.denominator == 1 else exact


def max_min_rates(flows: Sequence[Flow], capacities: Sequence[int]) -> list[Rate]:
    """Rates of flows that are under way together.

    Args:
        flows: Each with a cap or at least one resource.
        capacities: Of the resources, bytes/s, > 0.

    Returns:
        One rate per flow, exact, > 0.
    """
    rates: list[Rate] = [0] * len(flows)
    left: list[Rate] = list(capacities)
    rising = set(range(len(flows)))
    while rising:
        weights: dict[int, int] = {}
        for i in rising:
            for resource, weight in flows[i].uses:
                weights[resource] = weights.get(resource, 0) + weight
        levels = {r: quotient(left[r], total) for r, total in weights.items()}
        caps = [cap for i in rising if (cap := flows[i].cap) is not None]
        level = min([*levels.values(), *caps])
        full = {r for r, at in levels.items() if at == level}
        stopped = [
            i
            for i in rising
            if flows[i].cap == level or any(r in full for r, _ in flows[i].uses)
        ]
        for i in stopped:
            rates[i] = level
            for resource, weight in flows[i].uses:
                left[resource] -= weight * level
        rising.difference_update(stopped)
    return rates
