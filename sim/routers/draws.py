"""Random choices of routers, without a generator in the core."""

from __future__ import annotations

from typing import Final

_MASK: Final = (1 << 64) - 1


class Draws:
    """Numbers drawn at random: a hash of (seed, how many draws went before)."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._drawn = 0

    def below(self, count: int) -> int:
        """A number of 0..``count`` - 1, even to one part in 2**64 / ``count``."""
        self._drawn += 1
        return _split_mix(self._seed, self._drawn) * count >> 64


def _split_mix(seed: int, number: int) -> int:
    """The ``number``-th value of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = (seed + number * 0x9E3779B97F4A7C15) & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return z ^ z >> 31
