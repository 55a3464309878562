"""Stages of a pipeline: which layers of the model lie on which GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from sim.plan import LayerSpan


@dataclass(frozen=True, slots=True)
class Stage:
    """Layers ``first`` (included) to ``last`` (excluded) on GPUs of their own.

    Attributes:
        first: First layer.
        last: The one after the last layer.
        embeds: Holds the embedding: the first stage.
        heads: Holds final norm and LM head, and samples: the last stage.
    """

    first: int
    last: int
    embeds: bool
    heads: bool

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.last - self.first

    def clip(self, spans: Sequence[LayerSpan]) -> tuple[LayerSpan, ...]:
        """The part of an iteration that runs here."""
        inside = []
        for span in spans:
            first, last = max(span.first, self.first), min(span.last, self.last)
            if first < last:
                inside.append(LayerSpan(first, last, span.prefill, span.decode))
        return tuple(inside)


def pipeline_stages(num_layers: int, count: int) -> tuple[Stage, ...]:
    """Layers split over ``count`` stages as evenly as vLLM does it.

    What is left over goes, a layer each, to the last stages but the very last, which
    has the LM head (``get_pp_indices`` of vllm/distributed/utils.py).

    Args:
        num_layers: Layers of the model, at least ``count``.
        count: Stages.
    """
    size, left = divmod(num_layers, count)
    sizes = [size + (count - 1 - left <= stage < count - 1) for stage in range(count)]
    bounds = pairwise(accumulate(sizes, initial=0))
    return tuple(
        Stage(first, last, first == 0, last == num_layers) for first, last in bounds
    )
