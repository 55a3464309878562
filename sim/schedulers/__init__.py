"""Schedulers by name: a new policy is one file here and one line in the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sim.schedulers.adaptive_layered import AdaptiveLayeredPrefill
from sim.schedulers.chunked_prefill import ChunkedPrefill
from sim.schedulers.dynamic_chunked import DynamicChunkedPrefill
from sim.schedulers.hybrid import HybridPrefill
from sim.schedulers.layer_groups import GROUP_RULES
from sim.schedulers.layered_prefill import LayeredPrefill
from sim.schedulers.multiplexed_prefill import MultiplexedPrefill, PhaseClock
from sim.schedulers.pace import Pace
from sim.schedulers.whole_prompt import Orca, Static
from sim.view import EngineLimits, Scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOptions:
    """What a policy may be configured with.

    Attributes:
        limits: Engine options every policy obeys.
        num_layer_groups: Most layer groups (layered prefill, hybrid).
        layer_group_rule: Key of ``GROUP_RULES`` (layered prefill, hybrid).
        pace: Target of an iteration (adaptive layered, dynamic chunked prefill).
        clock: Foretells phases that run at once (multiplexed prefill).
    """

    limits: EngineLimits
    num_layer_groups: int = 16
    layer_group_rule: str = "code"
    pace: Pace = field(default_factory=Pace)
    clock: PhaseClock | None = None

    @property
    def groups(self) -> tuple[EngineLimits, int, Callable[[int, int], int]]:
        """What the policies with a fixed number of layer groups are made from."""
        rule = GROUP_RULES[self.layer_group_rule]
        return self.limits, self.num_layer_groups, rule


SCHEDULERS: Mapping[str, Callable[[SchedulerOptions], Scheduler]] = MappingProxyType(
    {
        "adaptive-layered-prefill": lambda options: AdaptiveLayeredPrefill(
            options.limits, options.pace
        ),
        "chunked-prefill": lambda options: ChunkedPrefill(options.limits),
        "dynamic-chunked-prefill": lambda options: DynamicChunkedPrefill(
            options.limits, options.pace
        ),
        "hybrid-prefill": lambda options: HybridPrefill(*options.groups),
        "layered-prefill": lambda options: LayeredPrefill(*options.groups),
        "multiplexed-prefill": lambda options: MultiplexedPrefill(
            options.limits, options.clock
        ),
        "orca": lambda options: Orca(options.limits),
        "static": lambda options: Static(options.limits),
    }
)
"""Every scheduler by its configuration name."""

PARKING: frozenset[str] = frozenset(
    {
        "adaptive-layered-prefill",
        "hybrid-prefill",
        "layered-prefill",
        "multiplexed-prefill",
    }
)
"""Those under which prompts wait between layers from one iteration to the next."""
