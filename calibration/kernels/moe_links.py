"""All-to-all between the ranks of an expert-parallel group: NVLink and NIC tiers."""

from __future__ import annotations

from calibration.hardware import Gpu
from calibration.kernels.collectives import nccl_curve
from calibration.links import P2P_LATENCY_NS
from calibration.tables import KernelTables
from sim.kernel_times import Timed

_PROFILED = (2, 4, 8)


class MoeLinks:
    """Time of an all-to-all from the bytes of its busiest rank.

    Inside a node NCCL's all-to-all, log-log in bytes; between nodes bytes over the
    NIC's bandwidth plus a latency. Both tiers work at the same time.

    Args:
        tables: Profiled tables of the GPU.
        gpu: The GPU.
        ranks: EP size.
        ranks_per_node: Ranks of the group in one node.
        link_scale: Bandwidth of links against the profiled machine's.

    Raises:
        ConfigError: If NCCL's all-to-all was not profiled on this GPU.
    """

    def __init__(
        self,
        tables: KernelTables,
        gpu: Gpu,
        ranks: int,
        ranks_per_node: int,
        link_scale: float = 1.0,
    ) -> None:
        self.ranks, self.ranks_per_node = ranks, min(ranks, ranks_per_node)
        self._local = max(n for n in _PROFILED if n <= max(self.ranks_per_node, 2))
        self._curve = nccl_curve(tables, self._local, "alltoall")
        self._all_gather = nccl_curve(tables, self._local, "all_gather")
        self._nic = gpu.nic_bandwidth_bytes_per_s / 1e9 * link_scale
        self._scale = link_scale

    def all_to_all(self, node_bytes: float, nic_bytes: float) -> Timed:
        """Time when the busiest rank moves so many bytes in the node and over its NIC.

        Args:
            node_bytes: To other ranks of the node, larger of sent and received.
            nic_bytes: To ranks of other nodes.
        """
        if self.ranks == 1:
            return Timed(0)
        # A profiled message is a rank's whole buffer, its own share included.
        message = node_bytes * self._local / (self._local - 1) / self._scale
        near = self._curve.at(message)
        far = 0.0
        if nic_bytes > 0:
            far = P2P_LATENCY_NS + nic_bytes / self._nic
        if far > near.ns:
            return Timed(round(far), round(far))  # nobody profiled this tier
        return near

    def transfer_ns(self, rank_bytes: float) -> int:
        """Time to bring one rank so many bytes of expert weights.

        Spread evenly over the other ranks, so over the NIC as far as they are in other
        nodes.
        """
        if self.ranks == 1:
            return 0
        far = rank_bytes * (1 - (self.ranks_per_node - 1) / (self.ranks - 1))
        return self.all_to_all(rank_bytes - far, far).ns

    def gather(self, message_bytes: int) -> Timed:
        """Time to gather ``message_bytes`` in all onto every rank.

        Over several nodes every rank also receives the other nodes' part over its NIC,
        shared with the ranks of its node.
        """
        if self.ranks == 1:
            return Timed(0)
        near = self._all_gather.at(message_bytes / self._scale)
        nodes = self.ranks // self.ranks_per_node
        if nodes == 1:
            return near
        far_bytes = message_bytes * (nodes - 1) / nodes / self.ranks_per_node
        far = round(P2P_LATENCY_NS + far_bytes / self._nic)
        return Timed(near.ns + far, near.extrapolated_ns + far)
