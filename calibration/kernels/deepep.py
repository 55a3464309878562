"""Dispatch and combine by DeepEP, from measured tables.

The tables time so many tokens per rank under uniform routing. What a rank moves under
any placement is turned into the tokens that would move as many bytes, and those are
looked up: inside the table for its model and ranks no other assumption is made. Another
model or number of ranks takes the nearest profiled one's bytes per second, and several
nodes of a GPU that was timed in one only the bandwidth of the NIC; both count as
extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from calibration.hardware import gpu
from calibration.kernels.interpolate import LogLogCurve
from calibration.kernels.rank_loads import BFLOAT16_BYTES, DISPATCH_BYTES
from calibration.links import P2P_LATENCY_NS
from calibration.pack_set import read_provenance
from calibration.pack_sources import DEEPEP, pack_name
from calibration.tables import DATA_DIR, KernelTables, load_tables
from sim.errors import ConfigError
from sim.kernel_times import Timed

Mode = Literal["normal", "low_latency"]
_WIDTHS: Final = {"dispatch": DISPATCH_BYTES["fp8"], "combine": float(BFLOAT16_BYTES)}
_MODES: Final[tuple[Mode, ...]] = ("normal", "low_latency")


class ExpertSizes(NamedTuple):
    """What DeepEP's messages depend on."""

    hidden_size: int
    top_k: int
    num_experts: int


@dataclass(frozen=True, slots=True)
class _Curve:
    """Time against bytes that the busiest rank moves.

    Attributes:
        by_tokens: Time over tokens per rank.
        near_bytes: Bytes of one such token inside the node; over the NIC ``far_bytes``,
            0 of a table of one node.
        exact: Whether it is of this very model and number of ranks.
    """

    by_tokens: LogLogCurve
    near_bytes: float
    far_bytes: float
    exact: bool

    def near(self, size: float) -> Timed:
        return self._at(size / self.near_bytes)

    def far(self, size: float) -> Timed:
        return self._at(size / self.far_bytes)

    def _at(self, tokens: float) -> Timed:
        timed = self.by_tokens.at(tokens)
        return timed if self.exact else Timed(timed.ns, timed.ns)


class DeepEp:
    """Times of DeepEP's kernels for one model on a group of ranks.

    Args:
        tables: Pack of the GPU (see :func:`deepep_tables`).
        sizes: Of the model.
        ranks: EP size.
        ranks_per_node: Ranks of the group in one node.
        link_scale: Bandwidth of links against the profiled machine's.
    """

    def __init__(
        self,
        tables: KernelTables,
        sizes: ExpertSizes,
        ranks: int,
        ranks_per_node: int,
        link_scale: float = 1.0,
    ) -> None:
        self.tables = tables
        self.nodes = -(-ranks // ranks_per_node)
        self._scale = link_scale
        device = gpu(tables.gpu)
        self._nic = device.nic_bandwidth_bytes_per_s / 1e9
        group = _Group(ranks, self.nodes, device.gpus_per_node)
        self._one_node, self._all = (
            {
                (mode, phase): _curve(tables, (mode, phase), sizes, group, nodes)
                for mode in _MODES
                for phase in _WIDTHS
            }
            for nodes in (1, self.nodes)
        )

    def at(self, mode: Mode, phase: str, near_bytes: float, far_bytes: float) -> Timed:
        """Time when the busiest rank moves so many bytes.

        Args:
            mode: Kernels.
            phase: "dispatch" or "combine".
            near_bytes: Inside its node; in low latency, whose messages all take one
                way, in all.
            far_bytes: Over its NIC.
        """
        near, far = near_bytes / self._scale, far_bytes / self._scale
        inside, whole = self._one_node[mode, phase], self._all[mode, phase]
        if far <= 0 or not whole.far_bytes:
            # Both tiers work at the same time.
            return max(inside.near(near), self._over_nic(far))
        if mode == "low_latency":
            return whole.near(near)
        return max(inside.near(near), whole.far(far))

    def _over_nic(self, size: float) -> Timed:
        if size <= 0:
            return Timed(0)
        ns = round(P2P_LATENCY_NS + size / self._nic)
        return Timed(ns, ns)


class _Group(NamedTuple):
    """Ranks and nodes of a group, and GPUs of a profiled node."""

    ranks: int
    nodes: int
    gpus_per_node: int


def deepep_tables(tables: KernelTables) -> KernelTables:
    """The pack of DeepEP's kernels on the same GPU; the shipped one if a set has none.

    Raises:
        ConfigError: If DeepEP was not profiled on it.
    """
    for folder in (tables.data_dir, DATA_DIR):
        if pack_name(tables.gpu, DEEPEP) in read_provenance(folder):
            return load_tables(tables.gpu, folder, DEEPEP)
    raise ConfigError(
        f"moe.all_to_all = deepep: DeepEP was not profiled on {tables.gpu}; allowed:"
        " nccl"
    )


def _curve(
    tables: KernelTables,
    kernel: tuple[Mode, str],
    sizes: ExpertSizes,
    group: _Group,
    nodes: int,
) -> _Curve:
    """The curve of a model, or of the profiled one with most alike tokens."""
    mode, phase = kernel
    name = f"deepep_{mode}"
    if nodes > 1 and f"{name}_nodes" in tables.names:
        name += "_nodes"
    rows = tables.select(name, phase=phase)
    known = max(n for n in rows["num_nodes"].tolist() if n <= nodes)
    columns = (rows[key].tolist() for key in ("hidden_size", "topk", "num_experts"))
    shapes = [ExpertSizes(*row) for row in zip(*columns, strict=True)]
    there = rows["num_nodes"] == known
    nearest = min(
        (shape for shape, here in zip(shapes, there, strict=True) if here),
        key=_distance_from(sizes),
    )
    chosen = there & np.array([shape == nearest for shape in shapes])
    width = nearest.hidden_size * _WIDTHS[phase]
    ranks = known * group.gpus_per_node
    near = reached(nearest, ranks) * (1 - 1 / ranks)
    far = reached(nearest, known) * (1 - 1 / known)
    profiled = nearest, known, group.nodes * group.gpus_per_node
    return _Curve(
        by_tokens=LogLogCurve(
            rows["num_tokens"][chosen].astype(np.float64),
            rows["latency_ns"][chosen].astype(np.float64),
        ),
        near_bytes=width * (nearest.top_k if mode == "low_latency" else near),
        far_bytes=width * far,
        exact=profiled == (sizes, nodes, group.ranks),
    )


def _distance_from(wanted: ExpertSizes) -> Callable[[ExpertSizes], float]:
    """How unlike a model's messages are: size, number and targets."""

    def distance(shape: ExpertSizes) -> float:
        ratios = zip(shape, wanted, strict=True)
        return sum(abs(math.log(size / other)) for size, other in ratios)

    return distance


def reached(sizes: ExpertSizes, groups: int) -> float:
    """Expected groups of equally many experts that hold any of k distinct ones."""
    outside = sizes.num_experts - sizes.num_experts // groups
    ways = math.comb(outside, sizes.top_k) / math.comb(sizes.num_experts, sizes.top_k)
    return groups * (1.0 - ways)
