"""What runs through a layer together, and its two halves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# vLLM's defaults of dual batch overlap (ParallelConfig.dbo_decode_token_threshold,
# dbo_prefill_token_threshold): smaller batches run whole.
_FEWEST_DECODES: Final = 32
_FEWEST_WITH_PROMPTS: Final = 512

Chunk = tuple[int, int]
"""(prefix, tokens) of a prompt."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Decode rows and prompt chunks that go through a layer.

    Attributes:
        decoding: Decode rows.
        context_tokens: KV tokens they attend to, all together.
        chunks: (prefix, tokens) of each chunk.
    """

    decoding: int
    context_tokens: int
    chunks: tuple[Chunk, ...] = ()

    @property
    def rows(self) -> int:
        """Tokens."""
        return self.decoding + sum(tokens for _, tokens in self.chunks)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of each chunk."""
        return tuple(tokens for _, tokens in self.chunks)

    @property
    def worth_halving(self) -> bool:
        """Whether an engine would overlap a batch of this size with itself."""
        fewest = _FEWEST_WITH_PROMPTS if self.chunks else _FEWEST_DECODES
        return self.rows >= fewest

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches of half the rows each; a chunk in the middle is cut.

        Decode rows are split evenly, with contexts of the mean length.
        """
        first = -(-self.decoding // 2)
        context = self.context_tokens * first // max(self.decoding, 1)
        room = -(-self.rows // 2) - first
        head: list[Chunk] = []
        tail: list[Chunk] = []
        for prefix, tokens in self.chunks:
            taken = min(tokens, room)
            room -= taken
            if taken:
                head.append((prefix, taken))
            if taken < tokens:
                tail.append((prefix + taken, tokens - taken))
        return (
            Batch(first, context, tuple(head)),
            Batch(self.decoding - first, self.context_tokens - context, tuple(tail)),
        )
