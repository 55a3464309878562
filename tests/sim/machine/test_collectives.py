"""Collectives on links: bytes by counting, times by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from sim.machine.collectives import (
    Protocol,
    Round,
    all_pairs,
    hierarchical_all_reduce,
    moved_ns,
    pairwise_all_to_all,
    ring_all_gather,
    ring_all_reduce,
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

GB = 10**9
RATES = LinkRates(gpu=100 * GB, nic=10 * GB, socket=20 * GB)
SIMPLE = Protocol(name="Simple", base_ns=50, hop_ns={"nvlink": 3, "pcie": 5, "net": 20})
NVLINK_ONLY = Protocol(name="LL128", base_ns=7, hop_ns={"nvlink": 2}, wire=(128, 120))


def sent(rounds: tuple[Round, ...]) -> tuple[Counter[int], Counter[int]]:
    """Bytes each GPU sends and receives."""
    out: Counter[int] = Counter()
    into: Counter[int] = Counter()
    for each in rounds:
        for transfer in each.transfers:
            out[transfer.source] += each.repeat * transfer.num_bytes
            into[transfer.target] += each.repeat * transfer.num_bytes
    return out, into


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_what_is_sent_is_received_and_as_much_as_the_algorithm_says(count: int) -> None:
    """Bandwidth-optimal algorithms move 2 (n - 1) / n or (n - 1) / n of the message."""
    ranks, message = range(count), 24 * 1000
    share = message // count
    each = {
        ring_all_reduce: 2 * (count - 1) * share,
        ring_all_gather: (count - 1) * share,
        pairwise_all_to_all: (count - 1) * share,
        all_pairs: (count - 1) * message,
        two_shot: 2 * (count - 1) * share,
    }
    for algorithm, num_bytes in each.items():
        out, into = sent(algorithm(ranks, message))
        assert out == into == Counter(dict.fromkeys(ranks, num_bytes))
    out, into = sent(tree_all_reduce(ranks, message))
    assert out == into
    # Every edge of both trees carries half of the message up and half down.
    assert out.total() == 2 * 2 * (count - 1) * message // 2
    assert tree_all_reduce(ranks, message)[0].hops == 2 * (count - 1).bit_length()


def test_a_tree_is_a_chain_in_a_node() -> None:
    """4 nodes of 3 GPUs: 2 hops to the head, 2 between heads, and back.

    Head 9 is a leaf of the tree of heads 0, 3, 6, 9 and a child of the root in that of
    3, 6, 9, 0.
    """
    (each,) = tree_all_reduce(range(12), 2000, 3)
    assert each.hops == 2 * (2 + 2)
    up = {(t.source, t.target) for t in each.transfers if t.source > t.target}
    assert {(1, 0), (2, 1), (3, 0), (6, 0), (9, 3), (9, 8), (11, 10)} - up == {(9, 8)}
    assert sent((each,))[0] == sent((each,))[1]
    assert {t.num_bytes for t in each.transfers} == {1000}


def test_hierarchical_sends_over_the_network_only_what_it_must() -> None:
    """2 nodes of 4: every rail sums a quarter between its two GPUs."""
    nodes = (range(4), range(4, 8))
    rounds = hierarchical_all_reduce(nodes, 4000)
    across = [
        each.repeat * t.num_bytes
        for each in rounds
        for t in each.transfers
        if t.source // 4 != t.target // 4
    ]
    assert sum(across) == 8 * 2 * 500  # 2 (2 - 1) / 2 of 1000 bytes, 8 GPUs
    out, into = sent(rounds)
    assert out == into == Counter(dict.fromkeys(range(8), 2 * 3 * 1000 + 1000))


def test_a_ring_by_hand() -> None:
    """4 GPUs, 4000 bytes: 6 steps of 1000 bytes at 100 bytes/ns and 3 ns of latency."""
    links = nvswitch(4, RATES)
    assert time_ns(ring_all_reduce(range(4), 4000), links, SIMPLE) == 50 + 6 * (10 + 3)
    assert time_ns(ring_all_gather(range(4), 4000), links, SIMPLE) == 50 + 3 * (10 + 3)


def test_flags_on_the_wire_and_a_capped_protocol() -> None:
    """1200 bytes are 1280 on the wire; a cap of 50 bytes/ns doubles the time."""
    links = nvswitch(2, RATES)
    rounds = pairwise_all_to_all(range(2), 2400)
    assert time_ns(rounds, links, NVLINK_ONLY) == 7 + 13 + 2
    capped = Protocol(
        name="LL", base_ns=0, hop_ns={"nvlink": 0}, cap_bytes_per_s=50 * GB
    )
    assert time_ns(rounds, links, capped) == 24


def test_all_to_all_is_held_by_the_ports() -> None:
    """Each of 4 GPUs sends 3 x 1000 bytes through one port: 30 ns."""
    assert time_ns(pairwise_all_to_all(range(4), 4000), nvswitch(4, RATES), SIMPLE) == (
        50 + 30 + 3
    )


def test_between_sockets_pcie_is_narrow() -> None:
    """8 GPUs: 4 x 4 pairs of 1000 bytes cross each way at 20 bytes/ns: 800 ns."""
    links = pcie(8, RATES)
    assert time_ns(pairwise_all_to_all(range(8), 8000), links, SIMPLE) == 50 + 800 + 5
    assert time_ns(ring_all_gather(range(4), 4000), pcie(4, RATES), SIMPLE) == (
        50 + 3 * (10 + 5)
    )
    assert time_ns(ring_all_gather(range(4), 4000), links, NVLINK_ONLY) is None


@pytest.mark.parametrize("build", [nic_per_gpu, rail_optimised])
def test_two_nodes_by_hand(build: type[Topology]) -> None:
    """To the same rank over two NICs; to another one rails cross NVLink first."""
    links = build(4, 2, RATES)  # type: ignore[call-arg, arg-type]
    assert [links.links[i].name for i in links.route(0, 2)] == ["nic 0 out", "nic 2 in"]
    names = [links.links[i].name for i in links.route(0, 3)]
    if build is rail_optimised:
        assert names == ["gpu 0 out", "gpu 1 in", "nic 1 out", "nic 3 in"]
    else:
        assert names == ["nic 0 out", "nic 3 in"]
    assert links.medium(0, 3) == "net"
    assert links.medium(0, 1) == "nvlink"
    rounds = hierarchical_all_reduce((range(2), range(2, 4)), 4000)
    # In a node 2000 bytes at 100/ns; between nodes 2 x 1000 at 10/ns; as the first.
    expected = 50 + (20 + 3) + 2 * (100 + 20) + (20 + 3)
    assert time_ns(rounds, links, SIMPLE) == expected


def test_rails_share_the_nic_of_the_rank_they_go_through() -> None:
    """Both GPUs of a node send 1000 bytes to GPU 3: its NIC takes 10 bytes/ns."""
    transfers = [
        t
        for t in pairwise_all_to_all(range(4), 4000)[0].transfers
        if t.target == 3 and t.source < 2
    ]
    assert moved_ns(transfers, rail_optimised(4, 2, RATES), SIMPLE) == 200
    assert moved_ns(transfers, nic_per_gpu(4, 2, RATES), SIMPLE) == 200


def test_nothing_to_send_takes_the_start_alone() -> None:
    assert time_ns((Round((), 1, 1),), nvswitch(1, RATES), SIMPLE) == 50
