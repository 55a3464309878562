"""What a request's tokens are, as far as others may share them: a path of segments.

Two requests share a prefix exactly as far as their paths agree. A segment's number
stands for its tokens *and* all before it, so that it is a chained hash without
collisions: whoever makes requests numbers segments with :class:`SegmentChain`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

_POSITION_BITS: Final = 24
"""A block's key is (segment, position of its end); prompts are of at most 10**7 tokens,
see :mod:`sim.config_fields`."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """The tokens of a request that somebody else may have too, from the first one.

    It may end before the prompt does (what follows is nobody else's), or reach into
    the output, which only a later turn of a conversation will know: nothing beyond the
    prompt is shown to policies or routers.

    Attributes:
        segments: Their numbers, each of which stands for all up to its end.
        ends: Tokens up to the end of each, increasing.
    """

    segments: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    def within(self, tokens: int) -> Prefix:
        """The segments that lie in the first ``tokens`` tokens."""
        if not self.ends or self.ends[-1] <= tokens:
            return self
        whole = bisect_right(self.ends, tokens)
        return Prefix(self.segments[:whole], self.ends[:whole])

    def blocks(self, tokens: int, block_size: int) -> int:
        """Whole blocks among the first ``tokens`` tokens that may be shared."""
        return min(tokens, self.ends[-1] if self.ends else 0) // block_size

    def key(self, block: int, block_size: int) -> int:
        """What block number ``block`` holds, with all before it; one of :meth:`blocks`.

        The segment of its last token says what all tokens before are, the position
        where in the segment the block ends.
        """
        end = (block + 1) * block_size
        return self.segments[bisect_left(self.ends, end)] << _POSITION_BITS | end

    def keys(self, first: int, last: int, block_size: int) -> Iterator[int]:
        """Keys of the blocks ``first`` to before ``last``."""
        if first >= last:
            return
        at = bisect_left(self.ends, (first + 1) * block_size)
        for end in range((first + 1) * block_size, last * block_size + 1, block_size):
            while self.ends[at] < end:
                at += 1
            yield self.segments[at] << _POSITION_BITS | end


NOTHING_SHARED: Final = Prefix()


class SegmentChain:
    """Numbers segments so that equal numbers mean equal prefixes.

    A segment is known by (the one before it, its content, its length), as vLLM chains
    the hashes of blocks; interning takes the place of hashing, so nothing collides.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], int] = {}

    def prefix(self, contents: Sequence[int], lengths: Sequence[int]) -> Prefix:
        """The path of some contents, each of so many tokens (>= 1).

        Args:
            contents: Equal numbers are equal tokens, after the same tokens.
            lengths: Tokens of each.
        """
        segments, parent = [], -1
        for content, length in zip(contents, lengths, strict=True):
            known = (parent, content, length)
            parent = self._known.setdefault(known, len(self._known))
            segments.append(parent)
        return Prefix(tuple(segments), tuple(accumulate(lengths)))
