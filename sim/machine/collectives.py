"""Collectives as rounds of transfers over links, and how long they take.

A round's transfers run at once and share links max-min fairly; it ends with the last.
Messages are counted as in nccl-tests: the whole buffer of a rank, which is the gathered
output of an all-gather and the full input of the other three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from sim.machine.fluid import run_flows
from sim.machine.max_min import Flow
from sim.machine.topology import Medium, Topology

_NANO = 10**9


class Transfer(NamedTuple):
    """Bytes from one GPU to another."""

    source: int
    target: int
    num_bytes: int


class Round(NamedTuple):
    """Transfers at once.

    Attributes:
        transfers: What moves.
        repeat: How often in a row.
        hops: Latencies one after the other, in all repetitions together; a pipelined
            round has more of them than it has repetitions.
    """

    transfers: tuple[Transfer, ...]
    repeat: int
    hops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How bytes are put on a link.

    Attributes:
        name: Such as "LL".
        base_ns: Start of the collective.
        hop_ns: Latency of a hop by medium; a medium that is missing cannot carry it.
        wire: Bytes on the wire and bytes of the message they carry.
        cap_bytes_per_s: Most a transfer reaches, None without limit.
    """

    name: str
    base_ns: int
    hop_ns: Mapping[Medium, int]
    wire: tuple[int, int] = (1, 1)
    cap_bytes_per_s: int | None = None


def ring_all_reduce(ranks: Sequence[int], message_bytes: int) -> tuple[Round, ...]:
    """Each rank sends a share to the next, 2 (n - 1) times."""
    return (_ring(ranks, message_bytes, 2 * (len(ranks) - 1)),)


def ring_all_gather(ranks: Sequence[int], message_bytes: int) -> tuple[Round, ...]:
    """Each rank sends a share to the next, n - 1 times."""
    return (_ring(ranks, message_bytes, len(ranks) - 1),)


ring_reduce_scatter = ring_all_gather
"""The same transfers, summed on arrival."""


def tree_all_reduce(
    ranks: Sequence[int], message_bytes: int, gpus_per_node: int = 1
) -> tuple[Round, ...]:
    """Up and down two trees, each with half of the message, pipelined.

    A chain in every node and a binary tree between nodes, as NCCL builds them. In the
    second tree the nodes are shifted by one, so that leaves of one are inner nodes of
    the other.
    """
    width = min(gpus_per_node, len(ranks))
    nodes = [ranks[first : first + width] for first in range(0, len(ranks), width)]
    half = -(-message_bytes // 2)
    edges = [(b, a) for node in nodes for a, b in pairwise(node)] * 2
    for shift in (0, 1):
        heads = [nodes[(i + shift) % len(nodes)][0] for i in range(len(nodes))]
        edges += [(heads[i], heads[(i - 1) // 2]) for i in range(1, len(heads))]
    both_ways = [*edges, *((high, low) for low, high in edges)]
    depth = width - 1 + (len(nodes) - 1).bit_length()
    return (Round(tuple(Transfer(*edge, half) for edge in both_ways), 1, 2 * depth),)


def pairwise_all_to_all(ranks: Sequence[int], message_bytes: int) -> tuple[Round, ...]:
    """Every rank sends a share to every other one, all at once."""
    share = -(-message_bytes // len(ranks))
    transfers = (Transfer(a, b, share) for a in ranks for b in ranks if a != b)
    return (Round(tuple(transfers), 1, 1),)


def hierarchical_all_reduce(
    nodes: Sequence[Sequence[int]], message_bytes: int
) -> tuple[Round, ...]:
    """Reduce-scatter in each node, all-reduce between nodes, all-gather in each node.

    Args:
        nodes: Ranks by node, equally many in each; those of equal position reduce the
            same share.
        message_bytes: Of a rank.
    """
    share = -(-message_bytes // len(nodes[0]))
    inside = _together(ring_all_gather(ranks, message_bytes) for ranks in nodes)
    rails = _together(ring_all_reduce(rail, share) for rail in zip(*nodes, strict=True))
    return (*inside, *rails, *inside)


def all_pairs(ranks: Sequence[int], message_bytes: int) -> tuple[Round, ...]:
    """One-shot all-reduce: every rank reads the whole message of every other one.

    Its two hops are the barriers before and after (vLLM's custom all-reduce).
    """
    transfers = (Transfer(a, b, message_bytes) for a in ranks for b in ranks if a != b)
    return (Round(tuple(transfers), 1, 2),)


def two_shot(ranks: Sequence[int], message_bytes: int) -> tuple[Round, ...]:
    """Two-shot all-reduce: shares are read and summed, then the sums are read."""
    once = pairwise_all_to_all(ranks, message_bytes)[0].transfers
    return (Round(once, 2, 3),)


def time_ns(
    rounds: Sequence[Round], topology: Topology, protocol: Protocol
) -> int | None:
    """Time of a collective alone on its links.

    Returns:
        Nanoseconds; None if a link on the way cannot carry the protocol.
    """
    total_ns = protocol.base_ns
    for each in rounds:
        if not each.transfers:
            continue
        media = {topology.medium(t.source, t.target) for t in each.transfers}
        if not media <= protocol.hop_ns.keys():
            return None
        hop_ns = max(protocol.hop_ns[medium] for medium in media)
        total_ns += each.repeat * moved_ns(each.transfers, topology, protocol)
        total_ns += each.hops * hop_ns
    return total_ns


def moved_ns(
    transfers: Sequence[Transfer], topology: Topology, protocol: Protocol
) -> int:
    """Time until the last of some transfers has ended, without latency."""
    capacities = [link.bytes_per_s for link in topology.links]
    wire, payload = protocol.wire
    flows = [
        Flow(
            -(-t.num_bytes * wire // payload) * _NANO,
            tuple((link, 1) for link in topology.route(t.source, t.target)),
            protocol.cap_bytes_per_s,
        )
        for t in transfers
    ]
    return max(run_flows([(0, flow) for flow in flows], capacities))


def _ring(ranks: Sequence[int], message_bytes: int, steps: int) -> Round:
    share = -(-message_bytes // len(ranks))
    following = (*ranks[1:], ranks[0])
    pairs = zip(ranks, following, strict=True)
    return Round(tuple(Transfer(a, b, share) for a, b in pairs), steps, steps)


def _together(parts: Iterable[tuple[Round, ...]]) -> tuple[Round, ...]:
    """The same collective in several groups at once."""
    return tuple(
        Round(tuple(t for each in same for t in each.transfers), *same[0][1:])
        for same in zip(*parts, strict=True)
    )
