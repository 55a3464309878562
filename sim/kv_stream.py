"""KV caches that leave while their prompts are still being prefilled.

Splitwise (arXiv 2311.18677, section IV-C) sends the KV cache of each layer while the
next ones are computed, Mooncake (arXiv 2407.00079, section 5.2) also that of each
chunk. What is left after the end of the prefill is what the first decode waits for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from sim.plan import StepPlan
from sim.step import StepCost

WHOLE: Final = "whole"
CHUNK_WISE: Final = "chunk-wise"
LAYER_WISE: Final = "layer-wise"


@dataclass(frozen=True, slots=True)
class Growth:
    """What an iteration adds to a KV cache, in equal parts, the last at its end.

    Amounts are layer-tokens: KV of one token in one layer.

    Attributes:
        start_ns: From when on parts are computed.
        end_ns: When all are there, later than ``start_ns``.
        parts: How many.
        part_layer_tokens: What each adds.
    """

    start_ns: int
    end_ns: int
    parts: int
    part_layer_tokens: int

    @property
    def layer_tokens(self) -> int:
        """All of it."""
        return self.parts * self.part_layer_tokens

    def done(self, now_ns: int) -> int:
        """Layer-tokens that are there by a time: whole parts only."""
        return self._parts_done(now_ns) * self.part_layer_tokens

    def next_ns(self, now_ns: int) -> int | None:
        """When the next part will be there; None if all are."""
        after = self._parts_done(now_ns) + 1
        if after > self.parts:
            return None
        return self.start_ns - -after * (self.end_ns - self.start_ns) // self.parts

    def _parts_done(self, now_ns: int) -> int:
        passed_ns = min(max(now_ns, self.start_ns), self.end_ns) - self.start_ns
        return passed_ns * self.parts // (self.end_ns - self.start_ns)


class KvProgress:
    """How much of a prompt's KV cache exists, as time goes on.

    Args:
        total: Layer-tokens of the whole prompt.
        found: Those that a prefix cache had, there from the beginning.
    """

    def __init__(self, total: int, found: int = 0) -> None:
        self.total = total
        self._before = found
        self._growth: Growth | None = None

    def grow(self, growth: Growth) -> None:
        """An iteration begins that adds to it; the one before has ended."""
        if self._growth is not None:
            self._before += self._growth.layer_tokens
        self._growth = growth

    def done(self, now_ns: int) -> int:
        """Layer-tokens that are there by a time."""
        growth = self._growth
        return self._before + (0 if growth is None else growth.done(now_ns))

    def next_ns(self, now_ns: int) -> int | None:
        """When more will be there; None if no iteration that adds any is under way."""
        return None if self._growth is None else self._growth.next_ns(now_ns)


def growths(
    plan: StepPlan,
    cost: StepCost,
    start_ns: int,
    num_layers: int,
    *,
    layer_wise: bool,
) -> dict[int, Growth]:
    """What an iteration adds to the KV cache of each prompt in it, by request.

    Layer by layer where ``layer_wise`` and the plan is one span, in which every layer
    does the same: layers are spread evenly over the time that is not waiting, which is
    taken to come first, and the LM head over the layers, so that no layer is done
    earlier here than it would be. Else at the end of the iteration: of a chunk, or of
    a layer group.

    Args:
        plan: The iteration.
        cost: Its price.
        start_ns: When it begins.
        num_layers: Of the model.
        layer_wise: Whether layers are sent one by one.
    """
    amounts: Counter[int] = Counter()
    for span in plan.spans:
        for chunk in span.prefill:
            amounts[chunk.request_id] += span.layers * chunk.tokens
    end_ns, parts = start_ns + cost.duration_ns, 1
    if layer_wise and len(plan.spans) == 1:
        parts = num_layers
        start_ns += min(cost.wait_ns, cost.duration_ns - 1)
    return {
        request_id: Growth(start_ns, end_ns, parts, amount // parts)
        for request_id, amount in amounts.items()
    }


@dataclass(slots=True)
class StreamLog:
    """What streams of KV caches did in a run.

    Attributes:
        messages: Sent over links.
        moved: Caches that arrived whole.
        exposed_ns: Sum over them of the time from the first token to the arrival.
        discarded_layer_tokens: Sent of requests that ended with their first token.
    """

    messages: int = 0
    moved: int = 0
    exposed_ns: int = 0
    discarded_layer_tokens: int = 0
