"""The spans of an iteration in which one range of layers also prefills a batch."""

from __future__ import annotations

from functools import lru_cache

from sim.plan import LayerSpan, PrefillChunk
from sim.view import PrefillState, SchedulerView


def in_flight(view: SchedulerView) -> tuple[PrefillState, ...]:
    """Prompts that are between two layers."""
    return tuple([state for state in view.prefilling if state.layers_done])


def chunks_of(states: tuple[PrefillState, ...]) -> tuple[PrefillChunk, ...]:
    """Their tokens in flight."""
    return tuple([PrefillChunk(s.id, s.computed, s.chunk) for s in states])


def spans_around(
    first: int,
    last: int,
    num_layers: int,
    batch: tuple[PrefillChunk, ...],
    everywhere: tuple[PrefillChunk, ...] = (),
) -> tuple[LayerSpan, ...]:
    """``batch`` in layers ``first`` to before ``last``, ``everywhere`` in all layers.

    The decode batch runs through all of them.
    """
    spans: tuple[LayerSpan, ...] = (LayerSpan(first, last, batch + everywhere),)
    if first > 0:
        spans = (_apart(0, first, everywhere), *spans)
    if last < num_layers:
        spans = (*spans, _apart(last, num_layers, everywhere))
    return spans


def _apart(first: int, last: int, everywhere: tuple[PrefillChunk, ...]) -> LayerSpan:
    """Layers without the batch."""
    return LayerSpan(first, last, everywhere) if everywhere else _decodes(first, last)


@lru_cache(maxsize=1024)
def _decodes(first: int, last: int) -> LayerSpan:
    """Layers that only decode: there are few such spans, and iterations share them."""
    return LayerSpan(first, last)
