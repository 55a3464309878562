"""Requests on their way from the replica that prefilled them to one that decodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sim.errors import SimulationError
from sim.kv_stream import WHOLE
from sim.request import RequestRecord


@dataclass(frozen=True, slots=True)
class Handover:
    """A prefilled request whose KV cache changes hands.

    Attributes:
        record: The request.
        tokens: KV tokens to move: those of its prompt.
        first_ns: When the prefill emitted its first token; None while it has not.
        source: Replica that holds the KV blocks.
    """

    record: RequestRecord
    tokens: int
    first_ns: int | None
    source: int

    @property
    def begun_ns(self) -> int:
        """When its first token was emitted.

        Raises:
            SimulationError: If that is still to come.
        """
        if self.first_ns is None:
            raise SimulationError(f"request {self.id} decodes before its first token")
        return self.first_ns

    @property
    def id(self) -> int:
        """Of the request."""
        return self.record.request.id


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLinks:
    """How long KV blocks take between replicas.

    Every GPU of a replica sends its share to its counterpart at the same time, over
    its own link: NVLink inside a node, its NIC between nodes.

    Attributes:
        latency_ns: Of one transfer.
        gpu_bytes_per_token: KV bytes of a token on one GPU of the replica.
        gpus: GPUs of a replica.
        node_bytes_per_s: Bandwidth of one GPU inside a node, one direction.
        network_bytes_per_s: The same between nodes.
        replicas_per_node: Replicas are placed on nodes in order of their index.
    """

    latency_ns: int
    gpu_bytes_per_token: float
    gpus: int
    node_bytes_per_s: float
    network_bytes_per_s: float
    replicas_per_node: int

    def transfer_ns(self, source: int, target: int, tokens: float) -> int:
        """Latency + bytes over bandwidth, of ``tokens`` tokens; at least 1.

        Some layers of a token are that share of a token.
        """
        per = self.replicas_per_node
        near = source // per == target // per
        sent_ns = self.sent_ns(tokens * self.gpu_bytes_per_token, near=near)
        return max(1, self.latency_ns + round(sent_ns))

    def sent_ns(self, gpu_bytes: float, *, near: bool) -> float:
        """How long a GPU's link is busy with so many bytes, inside a node or not."""
        bandwidth = self.node_bytes_per_s if near else self.network_bytes_per_s
        return gpu_bytes * 1e9 / bandwidth

    def transfer_bytes(self, tokens: float) -> int:
        """Bytes of ``tokens`` tokens over all GPUs of a replica."""
        return round(tokens * self.gpu_bytes_per_token * self.gpus)


class KvPaths(Protocol):
    """What carries KV caches between replicas."""

    def transfer_ns(self, source: int, target: int, tokens: float) -> int:
        """How long ``tokens`` tokens take; at least 1."""
        ...


@dataclass(frozen=True, slots=True)
class PooledLinks:
    """Links between replicas on unlike machines.

    The GPUs of the source send to those of the target what these hold of the cache,
    copies included, spread evenly over both: the slower side decides, and its latency.
    With replicas that are alike that is what :class:`KvLinks` says.

    Attributes:
        of: The links of each replica to others like it.
        nodes: The node of each replica.
    """

    of: tuple[KvLinks, ...]
    nodes: tuple[int, ...]

    def transfer_ns(self, source: int, target: int, tokens: float) -> int:
        """Latency + bytes over the bandwidth of the slower side; at least 1."""
        out, into = self.of[source], self.of[target]
        near = self.nodes[source] == self.nodes[target]
        gpu_bytes = tokens * into.gpu_bytes_per_token
        sent_ns = max(
            out.sent_ns(gpu_bytes * (into.gpus / out.gpus), near=near),
            into.sent_ns(gpu_bytes, near=near),
        )
        return max(1, max(out.latency_ns, into.latency_ns) + round(sent_ns))


@dataclass(frozen=True, slots=True)
class Disaggregation:
    """A prefill pool and a decode pool: replicas 0, 1, ... prefill, the rest decode.

    Splitwise (arXiv 2311.18677) and DistServe (arXiv 2401.09670): a prompt runs on a
    prefill replica, which emits its first token; a decode replica pulls its KV cache
    as soon as it has a sequence slot and blocks for it, and until then the prefill
    replica keeps it (DistServe, section 4.3). A request that a decode replica preempts
    is computed again there, as vLLM does.

    Attributes:
        prefill: Replicas of the prefill pool.
        links: Between replicas.
        kv_transfer: When KV caches are sent; see :mod:`sim.kv_stream`. Unless
            ``WHOLE``, a request is offered as its prefill begins, and the decode
            replica takes slot and blocks for it before its cache is there.
    """

    prefill: int
    links: KvPaths
    kv_transfer: str = WHOLE

    @property
    def streams(self) -> bool:
        """Whether parts of KV caches are sent while others are computed."""
        return self.kv_transfer != WHOLE
