"""An iteration's batch, split into the micro-batches that a pipeline has in flight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.step import Int64

_Amount = TypeVar("_Amount", int, Int64)

Pieces = Mapping[PrefillChunk, Mapping[int, PrefillChunk]]
"""Of every chunk, what of it is in which micro-batch."""


class MicroBatch(NamedTuple):
    """Part of an iteration's batch, which goes through the layers by itself.

    Attributes:
        spans: As in the whole iteration, with this part's chunks.
        decoding: Its decoding requests.
        context_tokens: KV tokens they attend to.
    """

    spans: tuple[LayerSpan, ...]
    decoding: int
    context_tokens: int


def micro_batches(
    plan: StepPlan, decoding: int, context_tokens: int, *, most: int, budget: int
) -> list[MicroBatch]:
    """Split an iteration; parts without a token are left out.

    Decoding requests are spread evenly, their context with them. Chunks of prompts stay
    whole and go, one after the other, where fewest prompt tokens are; if they do not
    fit so, they are cut into equal shares, in order, as if engine steps had followed
    each other. Pieces of a prompt come in order, so each finds the keys and values of
    those before it on every stage.

    Args:
        plan: What runs.
        decoding: Requests that decode in it.
        context_tokens: KV tokens they attend to.
        most: Micro-batches.
        budget: Prompt tokens that a micro-batch may hold (vLLM's
            ``max_num_batched_tokens``); more only if the whole plan has more.
    """
    chunks = tuple(dict.fromkeys(c for span in plan.spans for c in span.prefill))
    pieces = _whole(chunks, most, budget)
    if pieces is None:
        pieces = _cut(chunks, most)
    parts = []
    for index in range(most):
        first, last = (decoding * i // most for i in (index, index + 1))
        if first == last and not any(index in piece for piece in pieces.values()):
            continue
        spans = tuple(_part(span, index, pieces) for span in plan.spans)
        context = (
            context_share(context_tokens, decoding, first, last) if decoding else 0
        )
        parts.append(MicroBatch(spans, last - first, context))
    return parts


def context_share(
    context_tokens: _Amount, decoding: int, first: int, last: int
) -> _Amount:
    """Context of requests ``first`` to before ``last`` of ``decoding``, if all alike.

    Shares of neighbours add up to that of both; so do arrays of contexts.
    """
    return context_tokens * last // decoding - context_tokens * first // decoding


def _part(span: LayerSpan, index: int, pieces: Pieces) -> LayerSpan:
    """A span with the chunks of one micro-batch."""
    inside = tuple(
        pieces[chunk][index] for chunk in span.prefill if index in pieces[chunk]
    )
    return LayerSpan(span.first, span.last, inside, span.decode)


def _whole(chunks: Sequence[PrefillChunk], most: int, budget: int) -> Pieces | None:
    """Every chunk in one micro-batch, or None if they do not fit so."""
    loads = [0] * most
    pieces = {}
    for chunk in chunks:
        lightest = loads.index(min(loads))
        loads[lightest] += chunk.tokens
        pieces[chunk] = {lightest: chunk}
    return pieces if max(loads) <= budget else None


def _cut(chunks: Sequence[PrefillChunk], most: int) -> Pieces:
    """Chunks one behind the other, cut into equal shares of all tokens."""
    share = -(-sum(chunk.tokens for chunk in chunks) // most)
    pieces, position = {}, 0
    for chunk in chunks:
        pieces[chunk] = dict(_shares(chunk, position, share))
        position += chunk.tokens
    return pieces


def _shares(
    chunk: PrefillChunk, position: int, share: int
) -> Iterator[tuple[int, PrefillChunk]]:
    """(micro-batch, piece) of a chunk with ``position`` tokens before it."""
    done = 0
    while done < chunk.tokens:
        index = (position + done) // share
        tokens = min((index + 1) * share - position - done, chunk.tokens - done)
        yield index, PrefillChunk(chunk.request_id, chunk.start + done, tokens)
        done += tokens
