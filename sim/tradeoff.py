"""TTFT against TBT at one request rate: each policy with several values of its knob.

Chunked prefill trades one for the other by its chunk (Agrawal et al., arXiv
2403.02310, section 4.3), layered prefill by its layer groups (Lee et al., arXiv
2510.08055, section 4.4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sim.config import Config
from sim.config_sections import CHUNKED_PREFILL
from sim.point import Point

LAYERED_PREFILL: Final = "layered-prefill"
# From the usual 512 to a whole usual batch; below 512 the main job is overloaded.
CHUNK_SIZES: Final = (512, 1024, 2048, 4096, 8192)
# Around the usual 16; with more than 24 the main job is overloaded.
LAYER_GROUPS: Final = (2, 4, 8, 16, 24)


@dataclass(frozen=True, slots=True)
class Setting:
    """A policy with one value of its knob.

    Attributes:
        knob: Key of the knob in ``engine``; None for a policy that has none.
        value: Its value: tokens, or layer groups, at most the model's layers.
        point: What runs.
    """

    knob: str | None
    value: int | None
    point: Point


@dataclass(frozen=True, slots=True)
class _Knob:
    """The knob of a policy, its configured value, and others that are allowed."""

    name: str
    own: int
    others: Sequence[int]


def plan_tradeoff(
    points: Sequence[Point], own_rate: float, num_layers: int
) -> list[Setting]:
    """Settings of every policy at one rate, by policy and then value.

    The rate is the configuration's own if it is compared, else the median compared
    rate, the lower of two. A setting equal to one of the points shares it.

    Args:
        points: Open-loop points.
        own_rate: ``workload.request_rate`` of the configuration.
        num_layers: Layers of the model.

    Returns:
        The settings; none where no rate is finite or no policy has a knob.
    """
    rates = {point.config.workload.request_rate for point in points}
    finite = sorted(rate for rate in rates if math.isfinite(rate))
    if not finite:
        return []
    rate = own_rate if own_rate in finite else finite[(len(finite) - 1) // 2]
    settings = [
        setting
        for point in points
        if point.config.workload.request_rate == rate
        for setting in _settings(point, num_layers)
    ]
    return settings if any(setting.knob for setting in settings) else []


def _settings(point: Point, num_layers: int) -> list[Setting]:
    knob = _knob(point.config, num_layers)
    if knob is None:
        return [Setting(None, None, point)]
    return [
        Setting(
            knob.name,
            value,
            point if value == knob.own else _turned(point, knob.name, value),
        )
        for value in sorted({knob.own, *knob.others})
    ]


def _knob(config: Config, num_layers: int) -> _Knob | None:
    engine = config.engine
    if config.parallel.prefill_replicas is not None:
        return None
    if engine.scheduler == CHUNKED_PREFILL:
        # a chunk holds a token of every running request (config check)
        allowed = [value for value in CHUNK_SIZES if value >= engine.max_num_seqs]
        return _Knob("max_num_batched_tokens", engine.token_budget, allowed)
    if engine.scheduler == LAYERED_PREFILL:
        own = min(engine.num_layer_groups, num_layers)
        allowed = [min(value, num_layers) for value in LAYER_GROUPS]
        return _Knob("num_layer_groups", own, allowed)
    return None


def _turned(point: Point, knob: str, value: int) -> Point:
    """The point with another value of its knob, in a folder of its own."""
    engine = point.config.engine.model_copy(update={knob: value})
    return replace(
        point,
        folder=f"{point.scheduler}/tradeoff/{knob}-{value}",
        config=point.config.model_copy(update={"engine": engine}),
    )
