"""Links between GPUs, and the ones a transfer takes from one GPU to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Medium = Literal["nvlink", "pcie", "net"]


@dataclass(frozen=True, slots=True)
class Link:
    """One direction of a link.

    Attributes:
        name: Such as "gpu 3 out".
        medium: What it is made of, which decides the latency of a hop.
        bytes_per_s: Bandwidth, >= 1.
    """

    name: str
    medium: Medium
    bytes_per_s: int


@dataclass(frozen=True, slots=True)
class Topology:
    """GPUs, numbered node by node, and the links between them.

    Attributes:
        num_gpus: GPUs.
        gpus_per_node: GPUs of a node.
        links: Every link, by position.
        route: Positions of the links from one GPU to another one.
    """

    num_gpus: int
    gpus_per_node: int
    links: tuple[Link, ...]
    route: Callable[[int, int], tuple[int, ...]]

    def medium(self, source: int, target: int) -> Medium:
        """Slowest kind of link on the way."""
        media = {self.links[link].medium for link in self.route(source, target)}
        slowest: tuple[Medium, ...] = ("net", "pcie", "nvlink")
        return next(medium for medium in slowest if medium in media)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRates:
    """Bandwidths of a GPU's links in one direction (bytes/s), each >= 1.

    Attributes:
        gpu: Its port into NVSwitch, or its PCIe lanes.
        nic: Its network interface.
        socket: Between the two halves of a node without NVLink.
    """

    gpu: int
    nic: int
    socket: int


def nvswitch(num_gpus: int, rates: LinkRates) -> Topology:
    """GPUs on one non-blocking switch: only their own ports can be full."""
    links = _ports(num_gpus, "nvlink", rates.gpu)
    return Topology(num_gpus, num_gpus, links, lambda a, b: (2 * a, 2 * b + 1))


def nic_per_gpu(num_gpus: int, gpus_per_node: int, rates: LinkRates) -> Topology:
    """NVSwitch nodes; every GPU has a NIC into one non-blocking network."""
    links = _with_nics(num_gpus, rates)

    def route(source: int, target: int) -> tuple[int, ...]:
        if source // gpus_per_node == target // gpus_per_node:
            return (2 * source, 2 * target + 1)
        nics = 2 * num_gpus
        return (nics + 2 * source, nics + 2 * target + 1)

    return Topology(num_gpus, gpus_per_node, links, route)


def rail_optimised(num_gpus: int, gpus_per_node: int, rates: LinkRates) -> Topology:
    """NVSwitch nodes; the NICs of equal rank in their node share a switch, a rail.

    To another rail a transfer first crosses NVLink to the GPU of that rail in its own
    node, which sends it on (NCCL's PXN).
    """
    links = _with_nics(num_gpus, rates)

    def route(source: int, target: int) -> tuple[int, ...]:
        if source // gpus_per_node == target // gpus_per_node:
            return (2 * source, 2 * target + 1)
        on_rail = source - source % gpus_per_node + target % gpus_per_node
        nics = 2 * num_gpus
        over_net = (nics + 2 * on_rail, nics + 2 * target + 1)
        if on_rail == source:
            return over_net
        return (2 * source, 2 * on_rail + 1, *over_net)

    return Topology(num_gpus, gpus_per_node, links, route)


def pcie(num_gpus: int, rates: LinkRates) -> Topology:
    """A node without NVLink: PCIe lanes of each GPU, two sockets with a link between.

    The first half of more than four GPUs is on the first socket.
    """
    half = num_gpus if num_gpus <= 4 else -(-num_gpus // 2)
    between = tuple(
        Link(f"socket {side} out", "pcie", rates.socket) for side in range(2)
    )
    links = (*_ports(num_gpus, "pcie", rates.gpu), *between)

    def route(source: int, target: int) -> tuple[int, ...]:
        if source // half == target // half:
            return (2 * source, 2 * target + 1)
        return (2 * source, 2 * num_gpus + source // half, 2 * target + 1)

    return Topology(num_gpus, num_gpus, links, route)


def _ports(num_gpus: int, medium: Medium, bytes_per_s: int) -> tuple[Link, ...]:
    """Way out and way in of each GPU, in turn."""
    return tuple(
        Link(f"gpu {gpu} {way}", medium, bytes_per_s)
        for gpu in range(num_gpus)
        for way in ("out", "in")
    )


def _with_nics(num_gpus: int, rates: LinkRates) -> tuple[Link, ...]:
    nics = tuple(
        Link(f"nic {gpu} {way}", "net", rates.nic)
        for gpu in range(num_gpus)
        for way in ("out", "in")
    )
    return (*_ports(num_gpus, "nvlink", rates.gpu), *nics)
