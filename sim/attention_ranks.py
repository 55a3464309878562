"""Data-parallel attention: what its busiest rank does of an iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sim.step import Int64

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class AttentionRanks:
    """Ranks of attention under one engine; 1 is plain tensor parallelism.

    Requests are spread evenly, every chunk of a prompt on one rank; the rank that has
    most decides.

    Attributes:
        count: Ranks, each of tensor-parallel size.
    """

    count: int = 1

    def share(self, number: int) -> int:
        """Requests or tokens of the busiest rank."""
        return -(-number // self.count)

    def share_many(self, numbers: Int64) -> Int64:
        """The same of many numbers."""
        return numbers if self.count == 1 else -(-numbers // self.count)

    def rows(self, decoding: int, chunks: Sequence[int]) -> int:
        """Rows of the busiest rank: its decodes and its chunks' tokens."""
        parts = self.spread(chunks, lambda tokens: tokens)
        return self.share(decoding) + max(sum(part) for part in parts)

    def spread(
        self, items: Sequence[_Item], weight: Callable[[_Item], int]
    ) -> list[tuple[_Item, ...]]:
        """Items over ranks, the heaviest first, each to the lightest rank so far."""
        if self.count == 1:
            return [tuple(items)]
        parts: list[list[_Item]] = [[] for _ in range(self.count)]
        totals = [0] * self.count
        for item in sorted(items, key=weight, reverse=True):
            lightest = totals.index(min(totals))
            parts[lightest].append(item)
            totals[lightest] += weight(item)
        return [tuple(part) for part in parts]


ONE_RANK = AttentionRanks()
