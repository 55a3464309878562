"""A request as the user sent it, and the record of what became of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from sim.prefix import NOTHING_SHARED, Prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a materialised workload.

    Attributes:
        id: Position in the workload, 0-based; unique.
        arrival_ns: Time the server receives it (0 for closed-loop requests, whose
            arrival is set by the client when a slot frees up; of a later turn of a
            session that of its first turn).
        prompt_tokens: Prompt length, >= 1.
        output_tokens: True output length, >= 1; no scheduler or router may read it.
        client: Who sent it, >= 0; fair queues share service among clients.
        prefix: What of its tokens other requests may share; only prefix caches read it.
        think_ns: Of a later turn of a session: it arrives so long after the request
            before it in the workload has finished or been rejected.
    """

    id: int
    arrival_ns: int
    prompt_tokens: int
    output_tokens: int
    client: int = 0
    prefix: Prefix = NOTHING_SHARED
    think_ns: int | None = None


@dataclass(frozen=True, slots=True)
class TokenRun:
    """Token times of one uninterrupted run, as a slice of its replica's iterations.

    The first token leaves at ``first_ns`` (end of its last prefill iteration); token
    ``k`` of the rest at ``decode_end_ns[start + k]`` of the replica. A ``resumed`` run
    has no prefill, for the KV cache came back from the host: its first token is that of
    a decode too, ``decode_end_ns[start - 1]``.
    """

    first_ns: int
    start: int
    stop: int
    resumed: bool = False

    @property
    def decodes(self) -> int:
        """Decode iterations it was in."""
        return self.stop - self.start + self.resumed


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """What happened to one request; times are integer nanoseconds since the start.

    Attributes:
        request: The request as it arrived.
        arrival_ns: When the server received it.
        replica: Index of the replica it was routed to, -1 if rejected at the door; of
            the one that decodes it once its KV cache has moved.
        prefill_replica: The one that prefilled it first, where another decodes it.
        first_scheduled_ns: Start of the first iteration that computed its prompt.
        first_token_ns: End of the iteration that emitted its first token (TTFT).
        finish_ns: End of the iteration that emitted its last token.
        output_tokens: Tokens to emit: true length cut at the context limit.
        preemptions: Times it lost its KV blocks, to be recomputed or to the host.
        cached_tokens: Prompt tokens that were in the prefix cache when it was first
            admitted, and so were not computed.
        retries: Times a failing replica lost it and the client sent it again. Replicas,
            times, tokens and hits are those of the attempt that finished, but for
            ``arrival_ns`` and ``preemptions``.
        rejected: Why it was refused, or None.
        runs: Token times, one slice per uninterrupted run.
    """

    request: Request
    arrival_ns: int
    replica: int = -1
    prefill_replica: int = -1
    first_scheduled_ns: int | None = None
    first_token_ns: int | None = None
    finish_ns: int | None = None
    output_tokens: int = 0
    preemptions: int = 0
    cached_tokens: int = 0
    retries: int = 0
    rejected: str | None = None
    runs: list[TokenRun]

    def start_over(self) -> RequestRecord:
        """Forget an attempt that came to nothing; returns the record of it."""
        attempt = replace(self, runs=self.runs)
        self.retries += 1
        self.replica, self.cached_tokens, self.runs = -1, 0, []
        self.first_scheduled_ns = self.first_token_ns = None
        return attempt


def sessions(requests: Iterable[Request]) -> Iterator[deque[Request]]:
    """Requests in order, each with the later turns that follow it."""
    turns: deque[Request] = deque()
    for request in requests:
        if turns and request.think_ns is None:
            yield turns
            turns = deque()
        turns.append(request)
    if turns:
        yield turns
