"""A prefill replica that tells how KV caches grow while it computes them."""

from __future__ import annotations

from typing import Protocol

from sim.engine import Engine
from sim.handover import Handover
from sim.kv_stream import Growth, KvProgress, growths
from sim.plan import StepPlan
from sim.shell.clock import Clock, Kind, Process
from sim.shell.replica import Outlets, Replica
from sim.step import StepCost, StepPricer


class GrowthOutlet(Protocol):
    """Who sends KV caches on."""

    def settle(self) -> None:
        """An iteration is about to begin, and with it perhaps an offer."""
        ...

    def open(self, handover: Handover, progress: KvProgress) -> None:
        """A prefill has begun."""
        ...

    def grow(self, request_id: int, growth: Growth) -> None:
        """An iteration has begun that adds to the KV cache of a request."""
        ...


class PrefillReplica(Replica):
    """A replica whose KV caches leave as they are computed.

    An iteration's price says, when it begins, which layers will be done when; that is
    told at once, after the iteration itself.

    Args:
        clock: Simulated time.
        engine: One that hands over.
        pricer: Prices its plans.
        outlets: Where requests go on to.
        streams: Where KV caches go on to.
        layer_wise: See :func:`~sim.kv_stream.growths`.
        index: Of the replica.
        detailed: Whether its log keeps every iteration.
    """

    def __init__(
        self,
        clock: Clock,
        engine: Engine,
        pricer: StepPricer,
        outlets: Outlets,
        streams: GrowthOutlet,
        *,
        layer_wise: bool,
        index: int,
        detailed: bool,
    ) -> None:
        super().__init__(clock, engine, pricer, outlets, index=index, detailed=detailed)
        self._streams = streams
        self._layer_wise = layer_wise
        self._price_only, self._price = self._price, self._price_and_tell
        self._open: set[int] = set()

    def _run_one(self, plan: StepPlan) -> Process:
        self._streams.settle()
        yield from super()._run_one(plan)

    def _price_and_tell(
        self, plan: StepPlan, decoding: int, context_tokens: int
    ) -> StepCost:
        cost = self._price_only(plan, decoding, context_tokens)
        self._clock.process(self._tell(plan, cost))
        return cost

    def _tell(self, plan: StepPlan, cost: StepCost) -> Process:
        yield self._clock.after(0, Kind.PLAN, self._index)
        layers, start_ns = self.engine.limits.num_layers, self._clock.now_ns
        wise = self._layer_wise
        for request_id, growth in growths(
            plan, cost, start_ns, layers, layer_wise=wise
        ).items():
            if request_id not in self._open:
                self._begin(request_id, layers)
            self._streams.grow(request_id, growth)
        done = self.engine.prefilling.keys()
        self._open.intersection_update(done)

    def _begin(self, request_id: int, layers: int) -> None:
        self._open.add(request_id)
        state = self.engine.prefilling[request_id]
        progress = KvProgress(state.tokens * layers, state.computed * layers)
        handover = self.engine.handover(request_id, self._index)
        self._streams.open(handover, progress)
