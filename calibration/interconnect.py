"""Topologies and protocols of the catalogue's GPUs; collectives timed on them.

The constants, each with its source, are in ``data/interconnect.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from calibration.hardware import Gpu
from sim.machine.collectives import (
    Protocol,
    Round,
    all_pairs,
    pairwise_all_to_all,
    ring_all_gather,
    ring_all_reduce,
    ring_reduce_scatter,
    time_ns,
    tree_all_reduce,
    two_shot,
)
from sim.machine.topology import (
    LinkRates,
    Topology,
    nic_per_gpu,
    nvswitch,
    pcie,
    rail_optimised,
)

_DATA: Final = Path(__file__).parent / "data" / "interconnect.toml"
Algorithm = Callable[[Sequence[int], int], tuple[Round, ...]]
ALGORITHMS: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {
        "all_reduce": ring_all_reduce,
        "all_gather": ring_all_gather,
        "reduce_scatter": ring_reduce_scatter,
        "alltoall": pairwise_all_to_all,
    }
)
"""By the name of the collective in the tables; all-reduces may take a tree too."""
TOPOLOGIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "nvswitch": "GPUs of one node on NVSwitch",
        "nic-per-gpu": "NVSwitch nodes, a NIC per GPU into one network",
        "rail-optimised": "NVSwitch nodes, the NICs of equal rank share a switch",
        "pcie": "one node without NVLink, two CPU sockets",
    }
)


@cache
def _constants() -> Mapping[str, Any]:
    return MappingProxyType(tomllib.loads(_DATA.read_text(encoding="utf-8")))


@cache
def protocols() -> tuple[Protocol, ...]:
    """What NCCL chooses from."""
    return tuple(
        Protocol(**{**each, "wire": tuple(each.get("wire", (1, 1)))})
        for each in _constants()["protocols"]
    )


def host_copies(gpu: Gpu) -> tuple[int, int] | None:
    """Copies between this GPU and its host: (ns to submit one, bytes/s one way).

    None where the catalogue has no source for them.
    """
    host = _constants()["host"]
    bytes_per_s = host["bytes_per_s"].get(gpu.name)
    return None if bytes_per_s is None else (host["copy_ns"], bytes_per_s)


def fabric(gpu: Gpu) -> str:
    """Topology of one node of this GPU."""
    name = _constants()["gpus"][gpu.name]["fabric"]
    return "nvswitch" if name == "nvlink" else "pcie"


def topology(
    gpu: Gpu, num_gpus: int, kind: str | None = None, link_scale: float = 1.0
) -> Topology:
    """Links between GPUs of the catalogue.

    Args:
        gpu: Which.
        num_gpus: How many.
        kind: Key of ``TOPOLOGIES``; None is one node of this GPU.
        link_scale: What-if factor on every bandwidth.
    """
    constants = _constants()
    rates = LinkRates(
        gpu=_scaled(constants["gpus"][gpu.name]["gpu_bytes_per_s"], link_scale),
        nic=_scaled(gpu.nic_bandwidth_bytes_per_s, link_scale),
        socket=_scaled(constants["sockets"]["bytes_per_s"], link_scale),
    )
    kind = kind or fabric(gpu)
    if kind == "nvswitch":
        return nvswitch(num_gpus, rates)
    if kind == "pcie":
        return pcie(num_gpus, rates)
    between = nic_per_gpu if kind == "nic-per-gpu" else rail_optimised
    return between(num_gpus, gpu.gpus_per_node, rates)


def nccl_ns(operation: str, message_bytes: int, links: Topology) -> int:
    """Time of an NCCL collective over all GPUs of a topology: the fastest choice.

    Args:
        operation: Key of ``ALGORITHMS``.
        message_bytes: As in the tables (see ``calibration.tables``).
        links: The GPUs.
    """
    ranks = range(links.num_gpus)
    choices = [ALGORITHMS[operation](ranks, message_bytes)]
    if operation == "all_reduce":
        choices.append(tree_all_reduce(ranks, message_bytes, links.gpus_per_node))
    times = (
        time_ns(rounds, links, protocol)
        for rounds in choices
        for protocol in protocols()
    )
    return min(ns for ns in times if ns is not None)


def custom_all_reduce_ns(message_bytes: int, links: Topology) -> int | None:
    """Time of vLLM's own all-reduce, replayed in a graph; None between nodes."""
    constants = _constants()["custom_all_reduce"]
    protocol = Protocol(
        name="custom", base_ns=constants["base_ns"], hop_ns=constants["hop_ns"]
    )
    limits = (
        most for gpus, most in constants["one_shot_bytes"] if links.num_gpus <= gpus
    )
    one_shot = message_bytes <= next(limits, 0)
    rounds = (all_pairs if one_shot else two_shot)(range(links.num_gpus), message_bytes)
    return time_ns(rounds, links, protocol)


def _scaled(bytes_per_s: float, scale: float) -> int:
    return max(round(bytes_per_s * scale), 1)
