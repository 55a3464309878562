"""KV caches that move between replicas while they are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sim.events import (
    Timed,
    engine_state,
)
from sim.handover import Handover
from sim.kv_stream import Growth, KvProgress, StreamLog
from sim.request import RequestRecord
from sim.shell.clock import Clock, Kind, Moment, Process
from sim.shell.pool import Pool
from sim.shell.replica import Replica
from sim.shell.transfers import Transfers
from sim.transfer_events import (
    PartSent,
    StreamStarted,
    StreamWithdrawn,
)


@dataclass(slots=True)
class _Stream:
    """One KV cache.

    Attributes:
        handover: Of the request; the last word once its prefill has ended.
        progress: What of it there is.
        target: Replica that is to decode it.
        sent: Layer-tokens that have arrived.
        under_way: Layer-tokens on a link.
        over: Whether its request has finished instead.
        more: Comes about when the next iteration begins to add to it.
    """

    handover: Handover
    progress: KvProgress
    target: int
    sent: int = 0
    under_way: int = 0
    over: bool = False
    more: Moment | None = None


@dataclass(frozen=True, slots=True)
class StreamOutlets:
    """The cluster's side of streams.

    Attributes:
        offered: Offers a request to a decode replica; returns which.
        arrived: A KV cache is where it is decoded.
        finished: A request has emitted its last token.
        tell: Tells an event, if anybody listens.
    """

    offered: Callable[[Handover], int]
    arrived: Callable[[Handover, int], None]
    finished: Callable[[RequestRecord], None]
    tell: Callable[[Timed], None]


class KvStreams:
    """Sends what there is of a KV cache whenever its last message has arrived.

    A message holds all that is there and not sent. It begins when the links of both
    replicas are free, in the order in which messages were asked for. Nothing is sent
    before the decode replica has slot and blocks for the request. If a request ends
    with its first token, the decode replica gives them up, after a message on its way.

    Args:
        clock: Simulated time.
        transfers: The links.
        replicas: All of them.
        decoders: Counts requests at decode replicas.
        outlets: The cluster's side.

    Attributes:
        log: What happened.
    """

    def __init__(
        self,
        clock: Clock,
        transfers: Transfers,
        replicas: list[Replica],
        decoders: Pool,
        outlets: StreamOutlets,
    ) -> None:
        self._clock = clock
        self._transfers = transfers
        self._replicas = replicas
        self._decoders = decoders
        self._outlets = outlets
        self._streams: dict[int, _Stream] = {}
        self.log = StreamLog()

    def settle(self) -> None:
        """Have iterations that end now end before anything is sent or offered."""
        for replica in self._replicas:
            replica.settle()

    def open(self, handover: Handover, progress: KvProgress) -> None:
        """A prefill has begun: offer the request to a decode replica."""
        target = self._outlets.offered(handover)
        self._streams[handover.id] = _Stream(handover, progress, target)

    def grow(self, request_id: int, growth: Growth) -> None:
        """An iteration has begun that adds to a KV cache."""
        stream = self._streams[request_id]
        stream.progress.grow(growth)
        if stream.more is not None:
            more, stream.more = stream.more, None
            more.succeed()

    def completed(self, handover: Handover) -> None:
        """A prefill has ended, its first token is out; the rest is still to be sent."""
        self._streams[handover.id].handover = handover

    def pulled(self, handover: Handover, target: int) -> None:
        """A decode replica has taken slot and blocks for a request."""
        stream = self._streams[handover.id]
        state = engine_state(self._replicas[target].engine)
        at = (self._clock.now_ns, handover.id, target, handover.source)
        self._outlets.tell(StreamStarted(*at, handover.tokens, state))
        self._clock.process(self._send(stream))

    def finished(self, record: RequestRecord) -> None:
        """A request is done: if on a prefill replica, its KV cache is of no use."""
        if record.prefill_replica < 0:
            stream = self._streams.pop(record.request.id)
            stream.over = True
            if not stream.under_way:
                self._withdraw(stream)
        self._outlets.finished(record)

    def _withdraw(self, stream: _Stream) -> None:
        request_id, target = stream.handover.id, stream.target
        self._decoders.leave(target, stream.handover.record)
        self.log.discarded_layer_tokens += stream.sent
        replica = self._replicas[target]
        replica.withdraw(request_id)
        state = engine_state(replica.engine)
        event = StreamWithdrawn(self._clock.now_ns, request_id, target, state)
        self._outlets.tell(event)

    def _send(self, stream: _Stream) -> Process:
        """Message after message, until all has arrived or is of no use."""
        clock, progress = self._clock, stream.progress
        while stream.sent < progress.total and not stream.over:
            stream.under_way = progress.done(clock.now_ns) - stream.sent
            if not stream.under_way:
                yield self._when_more(stream)
                self.settle()
                continue
            yield self._message(stream)
            self._received(stream)
        if not stream.over:
            self._arrived(stream)

    def _when_more(self, stream: _Stream) -> Moment:
        """The moment when there will be more of a KV cache.

        After iteration ends of the same time, so that a request that ends with its
        first token sends no last part.
        """
        clock = self._clock
        next_ns = stream.progress.next_ns(clock.now_ns)
        if next_ns is None:
            stream.more = clock.event()
            return stream.more
        source = stream.handover.source
        return clock.after(next_ns - clock.now_ns, Kind.FLEET, source)

    def _message(self, stream: _Stream) -> Moment:
        """The moment when what is under way will have arrived."""
        handover, target = stream.handover, stream.target
        layers = self._replicas[target].engine.limits.num_layers
        tokens = stream.under_way / layers
        begin_ns, end_ns = self._transfers.reserve(handover.source, target, tokens)
        now_ns = self._clock.now_ns
        self.log.messages += 1
        at = (now_ns, handover.id, target, handover.source)
        self._outlets.tell(PartSent(*at, begin_ns, end_ns, stream.under_way))
        return self._clock.after(end_ns - now_ns, Kind.ARRIVAL)

    def _received(self, stream: _Stream) -> None:
        stream.sent += stream.under_way
        stream.under_way = 0
        if stream.over:
            self._withdraw(stream)

    def _arrived(self, stream: _Stream) -> None:
        handover = stream.handover
        del self._streams[handover.id]
        self.log.moved += 1
        self.log.exposed_ns += self._clock.now_ns - handover.begun_ns
        self._outlets.arrived(handover, stream.target)
