"""Dispatch to experts and combine at home, layer by layer: by NCCL or by DeepEP."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from calibration.kernels.deepep import DeepEp, Mode
from calibration.kernels.moe_links import MoeLinks
from calibration.kernels.rank_loads import Copies, MoeShape, RankLoads

Integer = npt.NDArray[np.int64]
Phase = Literal["dispatch", "combine"]


class Exchanged(NamedTuple):
    """Time, its extrapolated part and bytes over links, by layer."""

    ns: Integer
    extrapolated_ns: Integer
    link_bytes: Integer


class Exchange(Protocol):
    """The messages of every MoE layer."""

    def cost(self, rows: int, *, prompts: bool) -> Exchanged:
        """Cost for so many rows, of prompts among others or decoding only."""
        ...


class NcclExchange:
    """All-to-all of NCCL over the bytes of the busiest rank.

    Args:
        links: All-to-all times.
        out: Copies on the way to experts.
        back: Copies on the way back.
        shape: Sizes of the model.
    """

    def __init__(
        self, links: MoeLinks, out: Copies, back: Copies, shape: MoeShape
    ) -> None:
        self._links = links
        self._ways = ((out, shape.dispatch_bytes), (back, shape.combine_bytes))

    def cost(self, rows: int, *, prompts: bool) -> Exchanged:
        """Cost for so many rows, whosever."""
        layers = len(self._ways[0][0].total)
        ns, outside = np.zeros((2, layers), dtype=np.int64)
        moved = np.zeros(layers)
        for copies, width in self._ways:
            near, far, total = (part * rows * width for part in copies)
            for layer in range(layers):
                if total[layer] <= 0:
                    continue
                timed = self._links.all_to_all(float(near[layer]), float(far[layer]))
                ns[layer] += timed.ns
                outside[layer] += timed.extrapolated_ns
            moved += total
        return Exchanged(ns, outside, np.rint(moved).astype(np.int64))


class DeepEpExchange:
    """DeepEP's kernels: normal for prompts, low latency where all rows decode.

    Normal mode sends a token to each rank once, low latency to each of its experts.

    Args:
        deepep: Their times.
        both: Copies on either way.
        loads: Routing under the placement.
        shape: Sizes of the model.
    """

    def __init__(
        self, deepep: DeepEp, both: Copies, loads: RankLoads, shape: MoeShape
    ) -> None:
        self._deepep, self._copies = deepep, both
        pairs = shape.top_k * loads.load
        # Every pair is a message: the busiest rank's, and those that leave a rank.
        self._pairs = pairs.max(axis=1)
        self._remote_pairs = pairs.sum(axis=1) * (1 - 1 / pairs.shape[1])
        self._widths: tuple[tuple[Phase, float], ...] = (
            ("dispatch", shape.dispatch_bytes),
            ("combine", shape.combine_bytes),
        )

    def cost(self, rows: int, *, prompts: bool) -> Exchanged:
        """Cost for so many rows, of prompts among others or decoding only."""
        near, far, total = self._copies
        mode: Mode = "normal"
        if not prompts:
            mode, near = "low_latency", self._pairs
            far = near * (1 - 1 / self._deepep.nodes)
            total = self._remote_pairs
        ns, outside = np.zeros((2, len(total)), dtype=np.int64)
        moved = np.zeros(len(total))
        for phase, width in self._widths:
            sizes = zip(near * rows * width, far * rows * width, strict=True)
            for layer, (near_bytes, far_bytes) in enumerate(sizes):
                timed = self._deepep.at(
                    mode, phase, float(near_bytes), float(far_bytes)
                )
                ns[layer] += timed.ns
                outside[layer] += timed.extrapolated_ns
            moved += total * rows * width
        return Exchanged(ns, outside, np.rint(moved).astype(np.int64))
