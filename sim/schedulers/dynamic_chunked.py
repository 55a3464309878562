"""Chunked prefill whose chunk is as large as the target for TBT allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.schedulers.admission import fill_budget
from sim.schedulers.pace import Pace
from sim.schedulers.room import make_room
from sim.view import EngineLimits, SchedulerView

TILE_TOKENS: Final = 64
"""Chunks are multiples of a GEMM tile, or a kernel runs padding (Sarathi-Serve, arXiv
2403.02310, section 4.3); 64 rows are the smallest tile of Hopper's warpgroup MMA."""


@dataclass(frozen=True, slots=True)
class DynamicChunkedPrefill:
    """SLO-aware chunk size: the dynamic chunking of Niyama (arXiv 2503.22562).

    Each iteration takes the largest budget of prompt tokens, in whole tiles, that a
    predictor says keeps the iteration within the target; ``max_num_batched_tokens``
    bounds it. Medha (arXiv 2409.17264) adapts chunks in the same way. All requests
    here share one target, so that Niyama's slack per request is that of the batch.

    Attributes:
        limits: Engine options.
        pace: Target of an iteration.
        tile_tokens: Tokens a chunk grows by.
    """

    limits: EngineLimits
    pace: Pace
    tile_tokens: int = TILE_TOKENS
    steady: bool = True
    stall_free: bool = True
    work_conserving: bool = False

    def plan(self, view: SchedulerView) -> StepPlan:
        """One span over all layers with a mixed batch."""
        room = make_room(view, self.limits)
        most = self.limits.max_num_batched_tokens - room.num_decoding
        chunks = fill_budget(view, room, self.limits, most)
        tokens = sum(chunk.tokens for chunk in chunks)
        tile = self.tile_tokens

        def with_tiles(number: int) -> StepPlan:
            kept = _first(chunks, min(number * tile, tokens))
            span = LayerSpan(0, self.limits.num_layers, kept)
            return StepPlan((span,), room.preempted)

        return with_tiles(self.pace.largest(-(-tokens // tile), with_tiles, room))

    def reject_reason(self, prompt_tokens: int) -> str | None:
        """Any prompt can be cut to the budget."""
        return None


def _first(chunks: tuple[PrefillChunk, ...], tokens: int) -> tuple[PrefillChunk, ...]:
    """The first ``tokens`` tokens of chunks that hold as many."""
    kept: list[PrefillChunk] = []
    for chunk in chunks:
        if chunk.tokens >= tokens:
            kept += [PrefillChunk(chunk.request_id, chunk.start, tokens)] * (tokens > 0)
            break
        kept.append(chunk)
        tokens -= chunk.tokens
    return tuple(kept)
