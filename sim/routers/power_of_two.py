"""The less loaded of two replicas drawn at random."""

from __future__ import annotations

from typing import Final

from sim.routers.router import Loads

_MASK: Final = (1 << 64) - 1


class PowerOfTwoChoices:
    """The less loaded, by requests, of two different replicas drawn at random.

    Mitzenmacher, "The power of two choices in randomized load balancing" (IEEE TPDS
    2001): almost as even as the least loaded of all, from two look-ups. Draws are a
    hash of (seed, how many draws went before), so a run has no hidden state to restore;
    of two equal loads the first drawn wins.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._drawn = 0

    def route(self, loads: Loads) -> int:
        """Index of the replica."""
        choices = loads.choices
        count = len(choices)
        if count == 1:
            return choices[0]
        drawn = self._draw(count)
        other = self._draw(count - 1)
        first, second = choices[drawn], choices[other + (other >= drawn)]
        return second if loads.requests[second] < loads.requests[first] else first

    def _draw(self, below: int) -> int:
        """A number of 0..``below`` - 1, even to one part in 2**64 / below."""
        self._drawn += 1
        return _split_mix(self._seed, self._drawn) * below >> 64


def _split_mix(seed: int, number: int) -> int:
    """The ``number``-th value of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = (seed + number * 0x9E3779B97F4A7C15) & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return z ^ z >> 31
