"""All-to-all tiers: bytes over the NIC by hand, inside a node the table."""

from __future__ import annotations

import pytest

from calibration.hardware import gpu
from calibration.kernels.moe_links import MoeLinks
from calibration.tables import load_tables

GB = 1e9


def _links(ranks: int, per_node: int, scale: float = 1.0) -> MoeLinks:
    return MoeLinks(load_tables("h100_sxm"), gpu("h100_sxm"), ranks, per_node, scale)


def test_the_nic_binds_between_nodes_and_counts_as_extrapolated() -> None:
    nic = gpu("h100_sxm").nic_bandwidth_bytes_per_s
    timed = _links(16, 8).all_to_all(1e6, 1 * GB)
    assert timed.ns == pytest.approx(10_000 + 1e9 * GB / nic, rel=1e-6)
    assert timed.extrapolated_ns == timed.ns
    near = _links(8, 8).all_to_all(1e6, 0.0)
    assert 0 < near.ns < timed.ns
    assert near.extrapolated_ns == 0


def test_one_rank_sends_nothing() -> None:
    alone = _links(1, 8)
    assert alone.all_to_all(1e6, 0.0).ns == 0
    assert alone.gather(1_000_000).ns == 0
    assert alone.transfer_ns(1e6) == 0


def test_gathering_over_nodes_adds_the_other_nodes_part() -> None:
    """Half of the message comes over the NICs of eight ranks."""
    nic = gpu("h100_sxm").nic_bandwidth_bytes_per_s
    inside, across = _links(8, 8).gather(10**9), _links(16, 8).gather(10**9)
    far = 10_000 + 1e9 * 10**9 / 2 / 8 / nic
    assert across.ns - inside.ns == pytest.approx(far, rel=1e-6)


def test_experts_come_over_the_nic_as_far_as_they_are_elsewhere() -> None:
    """8 of the 15 other ranks are in the other node."""
    nic = gpu("h100_sxm").nic_bandwidth_bytes_per_s
    ns = _links(16, 8).transfer_ns(15 * GB)
    assert ns == pytest.approx(10_000 + 1e9 * 8 * GB / nic, rel=1e-6)
