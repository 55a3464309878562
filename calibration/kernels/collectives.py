"""All-reduce and all-gather times from an engine's own kernel and NCCL tables."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np

from calibration.hardware import gpu
from calibration.interconnect import nccl_ns, topology
from calibration.kernels.interpolate import LogLogCurve
from calibration.tables import KernelTables
from sim.errors import ConfigError
from sim.kernel_times import Timed

# The public all-reduce timings of TensorRT-LLM are all of graph replays. Its eager
# launches, those of prompts, queue behind a busy GPU: kernel time is what counts.
_TIMED_IN_GRAPHS_ONLY: Final = frozenset({"trtllm"})


class _Curve(Protocol):
    """Time against bytes."""

    def at(self, size: float) -> Timed:
        """Time at ``size``."""
        ...


_LINK_SIZES: Final = tuple(1 << power for power in range(9, 31))


class Collectives:
    """Collectives of a tensor-parallel group inside one NVLink node.

    Messages up to ``custom_limit_bytes`` take the engine's own all-reduce (graph
    replay or eager launch), larger ones NCCL. A group of twice, four times, ... as many
    GPUs as the largest profiled one takes flows on links (``calibration.interconnect``)
    and counts as extrapolated.

    Args:
        tables: Profiled tables of the GPU.
        num_gpus: Group size; 1 makes everything free.
        custom_limit_bytes: Largest message for the custom kernel.
        link_scale: Bandwidth of the links against the profiled machine's.

    Raises:
        ConfigError: If no collective of this group size was profiled.
    """

    def __init__(
        self,
        tables: KernelTables,
        num_gpus: int,
        custom_limit_bytes: int,
        link_scale: float = 1.0,
    ) -> None:
        self._single = num_gpus == 1
        if self._single:
            return
        self._link_scale = link_scale
        self._custom_limit = custom_limit_bytes
        read = _linked if _is_beyond(tables, num_gpus) else _profiled
        self._graph, self._eager, self._nccl, self._gather = read(tables, num_gpus)

    def all_reduce(self, message_bytes: int, *, graph: bool) -> Timed:
        """Time to sum ``message_bytes`` over the group."""
        if self._single:
            return Timed(0)
        if message_bytes > self._custom_limit:
            return self._scaled(self._nccl, message_bytes)
        return self._scaled(self._graph if graph else self._eager, message_bytes)

    def all_gather(self, message_bytes: int) -> Timed:
        """Time to gather ``message_bytes`` in all onto every GPU."""
        if self._single:
            return Timed(0)
        return self._scaled(self._gather, message_bytes)

    def _scaled(self, curve: _Curve, message_bytes: int) -> Timed:
        """Scale the part above the latency floor by the link bandwidth."""
        timed = curve.at(message_bytes)
        if self._link_scale == 1.0:
            return timed
        floor = curve.at(0).ns
        ns = floor + round(max(timed.ns - floor, 0) / self._link_scale)
        return Timed(ns, ns if timed.extrapolated_ns else 0)


def nccl_curve(tables: KernelTables, num_gpus: int, op_name: str) -> LogLogCurve:
    """Time of an NCCL collective against the bytes of its message.

    Raises:
        ConfigError: If it was not profiled for this group size.
    """
    return _curve(tables, "nccl", num_gpus, op_name=op_name)


def _is_beyond(tables: KernelTables, num_gpus: int) -> bool:
    """Whether the group is twice, four times, ... the largest profiled one."""
    largest = int(tables.columns("nccl")["num_gpus"].max(initial=1))
    return num_gpus in {largest << doubled for doubled in range(1, 8)}


def _linked(tables: KernelTables, num_gpus: int) -> tuple[_Curve, ...]:
    """Flows on links in place of all four tables."""
    reduce = _LinkCurve(tables.gpu, num_gpus, "all_reduce")
    gather = _LinkCurve(tables.gpu, num_gpus, "all_gather")
    return reduce, reduce, reduce, gather


def _profiled(tables: KernelTables, num_gpus: int) -> tuple[_Curve, ...]:
    """Own all-reduce replayed and eager, NCCL's all-reduce and all-gather."""
    graph = _curve(tables, "custom_allreduce", num_gpus, backend="graph")
    eager = graph
    if tables.framework not in _TIMED_IN_GRAPHS_ONLY:
        eager = _curve(tables, "custom_allreduce", num_gpus, backend="eager")
    reduce = _curve(tables, "nccl", num_gpus, op_name="all_reduce")
    gather = _curve(tables, "nccl", num_gpus, op_name="all_gather")
    return graph, eager, reduce, gather


class _LinkCurve:
    """Time of an NCCL collective on links, log-log between powers of two."""

    def __init__(self, gpu_name: str, num_gpus: int, operation: str) -> None:
        links = topology(gpu(gpu_name), num_gpus)
        times = [nccl_ns(operation, size, links) for size in _LINK_SIZES]
        self._curve = LogLogCurve(np.array(_LINK_SIZES, float), np.array(times, float))

    def at(self, size: float) -> Timed:
        """Time at ``size``, all of it outside what was profiled."""
        ns = self._curve.at(size).ns
        return Timed(ns, ns)


def _curve(tables: KernelTables, table: str, num_gpus: int, **keys: str) -> LogLogCurve:
    rows = tables.select(table, num_gpus=num_gpus, **keys)
    if not rows["latency_ns"].size:
        raise ConfigError(
            f"{tables.gpu}: parallel.tensor_parallel_size = {num_gpus}: no {table}"
            " kernel was profiled for this group size (2, 4 and 8 are)"
        )
    order = np.argsort(rows["message_size"])
    return LogLogCurve(
        rows["message_size"][order].astype(np.float64),
        rows["latency_ns"][order].astype(np.float64),
    )
