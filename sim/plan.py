"""The step plan: for which layers, which tokens, in one iteration of a replica."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """``tokens`` prompt tokens of a request, starting at position ``start``.

    ``start`` tokens of the same request already sit in the KV cache (the prefix that
    attention reads), or will by the time these layers run.
    """

    request_id: int
    start: int
    tokens: int


@dataclass(frozen=True, slots=True)
class LayerSpan:
    """Layers ``first`` (included) to ``last`` (excluded) run with these tokens.

    ``decode`` says whether the whole decode batch runs through these layers too.
    """

    first: int
    last: int
    prefill: tuple[PrefillChunk, ...] = ()
    decode: bool = True

    @property
    def layers(self) -> int:
        """Number of layers in the span."""
        return self.last - self.first


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One iteration: spans that cover the layers once, after these preemptions.

    Attributes:
        spans: Contiguous, in order, from layer 0 to the last.
        preempted: Decoding requests that lose their KV blocks before the step, in
            the order they are evicted (newest first).
    """

    spans: tuple[LayerSpan, ...]
    preempted: tuple[int, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class SwapPlan(StepPlan):
    """A plan that begins with copies of KV blocks between GPU and host memory.

    Attributes:
        swapped_in: Requests whose KV blocks come back, in order; they decode in the
            spans like everybody else.
        swapped_out: Those of ``preempted`` whose KV blocks go to the host; the others
            lose theirs.
        blocks_in: KV blocks that come back.
        blocks_out: KV blocks that go.
    """

    swapped_in: tuple[int, ...] = ()
    swapped_out: tuple[int, ...] = ()
    blocks_in: int = 0
    blocks_out: int = 0
