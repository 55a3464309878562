"""The less loaded of two replicas drawn at random."""

from __future__ import annotations

from sim.routers.draws import Draws
from sim.routers.router import Loads


class PowerOfTwoChoices:
    """The less loaded, by requests, of two different replicas drawn at random.

    Mitzenmacher, "The power of two choices in randomized load balancing" (IEEE TPDS
    2001): almost as even as the least loaded of all, from two look-ups. Of two equal
    loads the first drawn wins.
    """

    def __init__(self, seed: int = 0) -> None:
        self._draws = Draws(seed)

    def route(self, loads: Loads) -> int:
        """Index of the replica."""
        choices = loads.choices
        count = len(choices)
        if count == 1:
            return choices[0]
        drawn = self._draws.below(count)
        other = self._draws.below(count - 1)
        first, second = choices[drawn], choices[other + (other >= drawn)]
        return second if loads.requests[second] < loads.requests[first] else first
