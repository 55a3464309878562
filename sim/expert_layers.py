"""The role of an expert-parallel group: what its MoE layers cost, one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sim.kernel_times import Timed


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeLayers:
    """Costs of the MoE part of layers, as running sums.

    Entry n is the sum over the layers before n, so layers a to b cost entry b less
    entry a.

    Attributes:
        ns: Experts on the slowest rank, and communication.
        wait_ns: Part in which GPUs wait: communication, and on average over ranks the
            time until the slowest has finished.
        extrapolated_ns: Part outside profiled ranges.
        extrapolated_experts_ns: Part of that in the experts.
        weight_bytes: HBM bytes of expert weights, all ranks.
        link_bytes: Bytes over links, all ranks.
    """

    ns: tuple[int, ...]
    wait_ns: tuple[int, ...]
    extrapolated_ns: tuple[int, ...]
    extrapolated_experts_ns: tuple[int, ...]
    weight_bytes: tuple[int, ...]
    link_bytes: tuple[int, ...]


class ExpertLayers(Protocol):
    """Experts spread over ranks by a placement.

    Attributes:
        reductions: All-reduces per layer that are left to the step cost.
    """

    reductions: int

    def cost(self, decoding: int, chunks: tuple[int, ...], *, graph: bool) -> MoeLayers:
        """Every layer's MoE part for decode rows and chunks of prompts."""
        ...

    def iteration(self, rows: int) -> Timed:
        """Communication once per iteration."""
        ...

    def iteration_bytes(self, rows: int) -> int:
        """Link bytes once per iteration."""
        ...
