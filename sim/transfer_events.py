"""KV caches that go from one replica to another, as events of a run."""

from __future__ import annotations

from dataclasses import dataclass

from sim.engine_state import EngineState


@dataclass(frozen=True, slots=True)
class Offered:
    """A replica has a request whose KV cache is for another one.

    It has prefilled it, or begins to where KV caches move while they are computed.
    """

    time_ns: int
    request_id: int
    replica: int
    target: int


@dataclass(frozen=True, slots=True)
class TransferStarted:
    """A replica has taken slot and blocks, and the KV cache is on its way.

    Attributes:
        time_ns: When it was asked for; the links may be busy until later.
        request_id: Whose.
        replica: Where to.
        source: Where from.
        begin_ns: When the links begin to send it.
        end_ns: When all of it will have arrived.
        tokens: KV tokens sent.
        state: Of the replica it goes to.
    """

    time_ns: int
    request_id: int
    replica: int
    source: int
    begin_ns: int
    end_ns: int
    tokens: int
    state: EngineState


@dataclass(frozen=True, slots=True)
class TransferEnded:
    """A KV cache has arrived; ``state`` is that of its source, without its blocks."""

    time_ns: int
    request_id: int
    replica: int
    source: int
    state: EngineState


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """A replica has taken slot and blocks for a KV cache that comes in parts.

    Attributes:
        time_ns: When.
        request_id: Whose.
        replica: Where to.
        source: Where from.
        tokens: KV tokens of the whole.
        state: Of the replica it goes to.
    """

    time_ns: int
    request_id: int
    replica: int
    source: int
    tokens: int
    state: EngineState


@dataclass(frozen=True, slots=True)
class PartSent:
    """Some layers' KV of some tokens are on their way.

    Attributes:
        time_ns: When that was asked for; the links may be busy until later.
        request_id: Whose.
        replica: Where to.
        source: Where from.
        begin_ns: When the links begin to send it.
        end_ns: When all of it will have arrived.
        layer_tokens: How much, in KV of one token in one layer.
    """

    time_ns: int
    request_id: int
    replica: int
    source: int
    begin_ns: int
    end_ns: int
    layer_tokens: int


@dataclass(frozen=True, slots=True)
class StreamWithdrawn:
    """A request has ended with its first token and will not come.

    Attributes:
        time_ns: When the replica it was offered to forgets it, and gives up slot and
            blocks if it had taken them.
        request_id: Whose.
        replica: The one it was offered to.
        state: Of that replica.
    """

    time_ns: int
    request_id: int
    replica: int
    state: EngineState
