"""Requests on their way from the replica that prefilled them to one that decodes."""

from __future__ import annotations

from dataclasses import dataclass

from sim.request import RequestRecord


@dataclass(frozen=True, slots=True)
class Handover:
    """A prefilled request whose KV cache changes hands.

    Attributes:
        record: The request.
        tokens: KV tokens to move: those of its prompt.
        first_ns: When the prefill emitted its first token.
        source: Replica that holds the KV blocks.
    """

    record: RequestRecord
    tokens: int
    first_ns: int
    source: int

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

    def transfer_ns(self, source: int, target: int, tokens: int) -> int:
        """Latency + bytes over bandwidth, of ``tokens`` tokens; at least 1."""
        per = self.replicas_per_node
        near = source // per == target // per
        bandwidth = self.node_bytes_per_s if near else self.network_bytes_per_s
        sent_ns = tokens * self.gpu_bytes_per_token * 1e9 / bandwidth
        return max(1, self.latency_ns + round(sent_ns))

    def transfer_bytes(self, tokens: int) -> int:
        """Bytes of ``tokens`` tokens over all GPUs of a replica."""
        return round(tokens * self.gpu_bytes_per_token * self.gpus)


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
    """

    prefill: int
    links: KvLinks
