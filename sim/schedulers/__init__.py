"""Schedulers by name: a new policy is one file here and one line in the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sim.schedulers.chunked_prefill import ChunkedPrefill
from sim.schedulers.layer_groups import GROUP_RULES
from sim.schedulers.layered_prefill import LayeredPrefill
from sim.schedulers.whole_prompt import Orca, Static
from sim.view import EngineLimits, Scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOptions:
    """What a policy may be configured with.

    Attributes:
        limits: Engine options every policy obeys.
        num_layer_groups: Most layer groups (layered prefill).
        layer_group_rule: Key of ``GROUP_RULES`` (layered prefill).
    """

    limits: EngineLimits
    num_layer_groups: int = 16
    layer_group_rule: str = "code"


def _layered(options: SchedulerOptions) -> Scheduler:
    return LayeredPrefill(
        options.limits, options.num_layer_groups, GROUP_RULES[options.layer_group_rule]
    )


SCHEDULERS: Mapping[str, Callable[[SchedulerOptions], Scheduler]] = MappingProxyType(
    {
        "chunked-prefill": lambda options: ChunkedPrefill(options.limits),
        "layered-prefill": _layered,
        "orca": lambda options: Orca(options.limits),
        "static": lambda options: Static(options.limits),
    }
)
"""Every scheduler by its configuration name."""

PARKING: frozenset[str] = frozenset({"layered-prefill"})
"""Those under which prompts wait between layers from one iteration to the next."""
