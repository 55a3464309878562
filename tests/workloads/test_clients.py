"""Clients: shares by Zipf, and nothing else moved."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from workloads.workload import WorkloadSpec, build_workload

SPEC = WorkloadSpec(dataset="sharegpt", request_rate=5.0, num_requests=6000)


def test_shares_follow_zipf() -> None:
    """1 : 1/2 : 1/3, within four standard deviations of a multinomial."""
    spec = replace(SPEC, num_clients=3, client_skew=1.0)
    counts = Counter(r.client for r in build_workload(spec).requests)
    for client, share in enumerate((6 / 11, 3 / 11, 2 / 11)):
        deviation = (6000 * share * (1 - share)) ** 0.5
        assert counts[client] == pytest.approx(6000 * share, abs=4 * deviation)


def test_clients_move_neither_times_nor_lengths() -> None:
    one, many = build_workload(SPEC), build_workload(replace(SPEC, num_clients=9))
    assert one.requests == tuple(replace(r, client=0) for r in many.requests)
    assert one.sha256 != many.sha256
