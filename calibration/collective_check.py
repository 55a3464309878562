"""Collectives over simulated links against the packed tables of measured ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from calibration.hardware import gpu
from calibration.interconnect import (
    ALGORITHMS,
    custom_all_reduce_ns,
    nccl_ns,
    topology,
)
from calibration.tables import KernelTables


@dataclass(frozen=True, slots=True)
class TimedCollective:
    """One row of a table, and what flows over links take.

    Attributes:
        gpu: Catalogue name.
        collective: NCCL's name of it, or "custom all_reduce".
        num_gpus: GPUs of the group.
        message_bytes: As in the table.
        measured_ns: Of the table.
        predicted_ns: Of the links.
    """

    gpu: str
    collective: str
    num_gpus: int
    message_bytes: int
    measured_ns: int
    predicted_ns: int


def check_collectives(tables: KernelTables) -> Iterator[TimedCollective]:
    """Every profiled collective of a GPU.

    The engine's own all-reduce is compared as replayed in a CUDA graph: eager launches
    take the host's time.
    """
    device = gpu(tables.gpu)
    for operation in ALGORITHMS:
        rows = tables.select("nccl", op_name=operation)
        for count, message, measured in _rows(rows):
            links = topology(device, count)
            predicted = nccl_ns(operation, message, links)
            yield TimedCollective(
                tables.gpu, operation, count, message, measured, predicted
            )
    rows = tables.select("custom_allreduce", backend="graph")
    for count, message, measured in _rows(rows):
        own = custom_all_reduce_ns(message, topology(device, count))
        if own is not None:
            yield TimedCollective(
                tables.gpu, "custom all_reduce", count, message, measured, own
            )


def _rows(rows: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
    names = ("num_gpus", "message_size", "latency_ns")
    yield from zip(*(rows[name].tolist() for name in names), strict=True)
