"""Which layers computed which prompt chunk in which iteration, as growing columns."""

from __future__ import annotations

from array import array

from sim.plan import StepPlan


class SpanLog:
    """Prompt chunks of one replica, one row per layer span and chunk.

    Attributes:
        iteration: Position of the iteration in the replica's log.
        first_layer: First layer of the span, included.
        last_layer: Last layer of the span, excluded.
        request_id: Request the chunk belongs to.
        prefix_tokens: Tokens of the request before the chunk.
        chunk_tokens: Tokens of the chunk.
    """

    def __init__(self) -> None:
        self.iteration = array("q")
        self.first_layer = array("q")
        self.last_layer = array("q")
        self.request_id = array("q")
        self.prefix_tokens = array("q")
        self.chunk_tokens = array("q")

    def append(self, iteration: int, plan: StepPlan) -> int:
        """Record a plan; returns its prompt tokens times the layers they ran in."""
        work = 0
        for span in plan.spans:
            for chunk in span.prefill:
                self.iteration.append(iteration)
                self.first_layer.append(span.first)
                self.last_layer.append(span.last)
                self.request_id.append(chunk.request_id)
                self.prefix_tokens.append(chunk.start)
                self.chunk_tokens.append(chunk.tokens)
                work += span.layers * chunk.tokens
        return work
