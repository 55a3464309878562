"""Online rebalancing: when experts move, and what moving them costs an iteration."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sim.energy import PowerModel
from sim.placement.metrics import gpu_loads, par
from sim.placement.placement import ExpertPlacement
from sim.plan import StepPlan
from sim.routing_stats import RoutingStats
from sim.step import StepCost, StepPricer


@dataclass(frozen=True, slots=True, kw_only=True)
class RebalancePolicy:
    """When to place experts anew (vLLM: EPLBConfig, SGLang: --eplb-*).

    Attributes:
        interval: Iterations between looks; None never looks.
        window: Iterations whose tokens are looked at.
        min_gain: Least relative fall of max / mean load that is worth moving.
        blocking: Whether serving stops while experts move; else transfers overlap with
            iterations and lengthen only those they outlast.
        layers_per_step: Layers that move in one iteration where it does not block.
    """

    interval: int | None = None
    window: int = 1000
    min_gain: float = 0.02
    blocking: bool = True
    layers_per_step: int = 1


class RebalancingPricer:
    """Prices iterations under a placement that follows the workload's topics.

    Implements :class:`sim.step.ClockedPricer`; one per replica, since it has a state.
    Does not price decodes many at a time: a look, a move or a new topic may fall on any
    iteration, so these runs go step by step.

    Args:
        policy: When to move.
        topics: Routing statistics by topic.
        period_ns: Time after which the next topic begins; 0 stays with the first.
        initial: Placement at the start.
        place: Finds a placement for statistics.
        pricer_of: Prices iterations of a topic under a placement.
        transfer_ns: Time to bring a rank so many bytes.
        expert_bytes: Of one expert in one layer.
        power: Board power.
    """

    def __init__(  # noqa: PLR0913  (roles of the composition root)
        self,
        *,
        policy: RebalancePolicy,
        topics: Sequence[RoutingStats],
        period_ns: int,
        initial: ExpertPlacement,
        place: Callable[[RoutingStats], ExpertPlacement],
        pricer_of: Callable[[int, ExpertPlacement], StepPricer],
        transfer_ns: Callable[[float], int],
        expert_bytes: float,
        power: PowerModel,
    ) -> None:
        self._policy, self._topics, self._period_ns = policy, topics, period_ns
        self._place, self._pricer_of = place, pricer_of
        self._transfer_ns, self._expert_bytes = transfer_ns, expert_bytes
        self._power = power
        self.placement = initial
        self._target: ExpertPlacement | None = None
        self._moved_layers = 0
        self._seen: deque[tuple[int, int]] = deque(maxlen=policy.window)
        self._iteration = 0
        self._topic = 0
        self._pricers: dict[int, StepPricer] = {}
        self.moves = 0

    def begin(self, start_ns: int) -> None:
        """An iteration starts now."""
        if self._period_ns:
            self._topic = start_ns // self._period_ns % len(self._topics)

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        """Cost of the iteration, and of the experts that move in it."""
        self._iteration += 1
        cost = self._current().price(plan, decoding, context_tokens)
        tokens = sum(s.layers * sum(c.tokens for c in s.prefill) for s in plan.spans)
        layers = plan.spans[-1].last
        self._seen.append((self._topic, decoding + tokens // layers))
        interval = self._policy.interval
        if interval is not None and self._iteration % interval == 0:
            self._look()
        return self._move(cost)

    def _current(self) -> StepPricer:
        pricer = self._pricers.get(self._topic)
        if pricer is None:
            pricer = self._pricer_of(self._topic, self.placement)
            self._pricers[self._topic] = pricer
        return pricer

    def _look(self) -> None:
        """Decide whether a new placement is worth its move."""
        if self._target is not None:
            return
        weights = np.zeros(len(self._topics))
        for topic, tokens in self._seen:
            weights[topic] += tokens
        if not weights.sum():
            return
        observed = _mixed(self._topics, weights / weights.sum())
        found = self._place(observed)
        now = float(par(gpu_loads(observed, self.placement.even_shares())).mean())
        then = float(par(gpu_loads(observed, found.even_shares())).mean())
        if now / then - 1.0 >= self._policy.min_gain:
            self._target, self._moved_layers = found, 0

    def _move(self, cost: StepCost) -> StepCost:
        """Move the next layers of the target, all of them where serving blocks."""
        target = self._target
        if target is None:
            return cost
        layers = len(target.phy_to_log)
        first = self._moved_layers
        step = layers if self._policy.blocking else self._policy.layers_per_step
        last = min(first + step, layers)
        table = self.placement.phy_to_log.copy()
        table[first:last] = target.phy_to_log[first:last]
        new = ExpertPlacement(table, target.num_experts, target.gpus)
        arrived = (new.on_gpu() > 0) & (self.placement.on_gpu() == 0)
        busiest = float(arrived.sum(axis=(0, 1)).max()) * self._expert_bytes
        ns = self._transfer_ns(busiest) if busiest else 0
        if not self._policy.blocking:
            # Links are free while kernels run; the rest of the transfer is exposed.
            ns = max(ns - (cost.duration_ns - cost.wait_ns), 0)
        self.placement, self._moved_layers = new, last
        self._pricers.clear()
        self.moves += last == layers
        if last == layers:
            self._target = None
        wait = self._power.split(duration_ns=ns, wait_ns=ns, hbm_bytes=0, flops=0)
        return cost._replace(
            duration_ns=cost.duration_ns + ns,
            wait_ns=cost.wait_ns + ns,
            link_bytes=cost.link_bytes + round(arrived.sum() * self._expert_bytes),
            energy_wait_j=cost.energy_wait_j + wait.wait_j,
        )


def _mixed(topics: Sequence[RoutingStats], weights: np.ndarray) -> RoutingStats:
    """What the window looked like: topics by their share of tokens."""
    load = np.tensordot(weights, np.stack([t.load for t in topics]), axes=1)
    joint = [t.transition for t in topics]
    transition = None
    if all(t is not None for t in joint):
        transition = sum(
            w * t for w, t in zip(weights, joint, strict=True) if t is not None
        )
    return RoutingStats(load, topics[0].top_k, transition, topics[0].coactivation)
