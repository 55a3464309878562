"""How much prefill fits beside the decodes: a target for the time of an iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sim.plan import StepPlan
from sim.schedulers.room import Room
from sim.step import StepPricer


@dataclass(frozen=True, slots=True)
class Pace:
    """The longest iteration to plan while requests decode, and how to foresee it.

    Serving systems foresee an iteration with a predictor fitted to profiled steps
    (Niyama, arXiv 2503.22562; Medha, arXiv 2409.17264). Here the predictor is the
    simulated machine's own price list: it errs nowhere, which real ones do.

    Attributes:
        target_ns: Longest iteration; None for no limit.
        pricer: Foretells the time of a plan; None for no limit.
    """

    target_ns: int | None = None
    pricer: StepPricer | None = None

    def largest(self, most: int, plan: Callable[[int], StepPlan], room: Room) -> int:
        """The largest ``n`` of 1..``most`` whose ``plan(n)`` keeps to the target.

        1 if none does, since prompts must get on; ``most`` if nobody decodes, since
        nobody is kept waiting. Times must not fall as ``n`` grows.
        """
        pricer, target_ns = self.pricer, self.target_ns
        if pricer is None or target_ns is None or not room.num_decoding:
            return most

        def keeps(n: int) -> bool:
            cost = pricer.price(plan(n), room.num_decoding, room.context_tokens)
            return cost.duration_ns <= target_ns

        return most_kept(most, keeps)


def most_kept(most: int, keeps: Callable[[int], bool]) -> int:
    """The largest ``n`` of 1..``most`` that ``keeps``, which no larger one may again.

    1 if none does.
    """
    if most <= 1 or keeps(most):
        return most
    low, high = 1, most  # low is taken even if it is too long, high is too long
    while high - low > 1:
        middle = (low + high) // 2
        if keeps(middle):
            low = middle
        else:
            high = middle
    return low
