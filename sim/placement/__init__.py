"""Placements of experts on GPUs: a new strategy is one file and one registry line."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sim.placement.alf_bias import place_alf_bias
from sim.placement.baselines import place_linear, place_random, place_round_robin
from sim.placement.coactivation import place_coactivation
from sim.placement.eplb import place_eplb
from sim.placement.exflow import place_exflow
from sim.placement.joint import place_joint
from sim.placement.lpt import place_lpt
from sim.placement.moetuner import place_moetuner
from sim.placement.strategy import Strategy

PLACEMENTS: Mapping[str, Strategy] = MappingProxyType(
    {
        "linear": Strategy(place_linear, "contiguous blocks, every engine's default"),
        "round_robin": Strategy(place_round_robin, "expert e on GPU e mod G"),
        "random": Strategy(place_random, "a random order per layer"),
        "lpt": Strategy(place_lpt, "balance load: heaviest first, then swaps"),
        "eplb": Strategy(
            place_eplb, "balance load with redundant experts", replicas=True
        ),
        "exflow": Strategy(place_exflow, "affinity between layers, blind to load"),
        "moetuner": Strategy(
            place_moetuner, "balanced clusters, least busy worst link"
        ),
        "coactivation": Strategy(
            place_coactivation,
            "experts of one token together, blind to load",
            needs=("coactivation",),
        ),
        "joint": Strategy(place_joint, "affinity or co-activation subject to balance"),
        "alf_bias": Strategy(
            place_alf_bias, "router-side bias that evens loads", changes_output=True
        ),
    }
)
"""Every placement strategy by its configuration name."""
