"""Pools of unlike replicas: against alike ones, by hand and by law."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim.shell.replica as replica_module
from calibration.hardware import gpu
from sim import pool_summary
from sim.config import Config
from sim.config_file import load_config
from sim.engine import Engine
from sim.errors import InvariantError
from sim.handover import Disaggregation, KvLinks, PooledLinks
from sim.kv_stream import CHUNK_WISE, LAYER_WISE, WHOLE
from sim.recording import Recording
from sim.results import RunResult
from sim.routers import ROUTERS
from sim.runner import run_config
from sim.schedulers import SCHEDULERS
from sim.shell.cluster import Cluster, ClusterRun, Disaggregated
from sim.studies.worker import simulate
from tests.cases import cases
from tests.sim.pricing import (
    LinearPricer,
    Scenario,
    limits,
    requests,
    scenarios,
    scheduler,
    scheduler_of,
)
from tests.sim.tape import Tape
from tests.sim.test_disaggregation import LINKS, tokens_of
from tests.sim.test_fast_forward import ManyPricer, assert_same

LOAD = ("workload.num_requests=8", "workload.request_rate=6.0")
UNLIKE = (
    *LOAD,
    "cluster.nodes=2",
    "pools.fast.replicas=1",
    "pools.old.gpu=a100_sxm",
    "pools.old.gpus_per_node=4",
    "pools.old.replicas=2",
    "pools.old.usd_per_gpu_hour=1.0",
)
APART = (
    *LOAD,
    "cluster.nodes=2",
    "pools.d.role=decode",
    "pools.d.gpu=a100_sxm",
    "pools.d.gpus_per_node=4",
    "pools.d.tensor_parallel_size=4",
    "pools.p.role=prefill",
    "pools.p.scheduler=chunked-prefill",
)
MACHINE_ONLY = ("config_sha256",)


def config_of(*overrides: str) -> Config:
    return load_config(None, overrides)


def same_but_for_pools(one: RunResult, two: RunResult) -> None:
    """Every table is the same; the summary too, but for the hash and the pools."""
    for name in ("requests", "timeseries", "steps", "iterations"):
        pd.testing.assert_frame_equal(
            getattr(one, name), getattr(two, name), check_exact=True
        )
    theirs = {k: v for k, v in two.summary.items() if not k.startswith("pool_")}
    for summary in (mine := dict(one.summary), theirs):
        for key in MACHINE_ONLY:
            summary.pop(key)
    assert json.dumps(mine) == json.dumps(theirs)  # the bytes of result.json


ALIKE = {
    "one pool": (
        ("parallel.replicas=2", "cluster.gpus_per_node=4"),
        ("pools.a.replicas=2", "cluster.gpus_per_node=4"),
    ),
    "two pools on one node": (
        ("parallel.replicas=3", "cluster.gpus_per_node=8"),
        ("pools.a.replicas=1", "pools.b.replicas=2", "cluster.gpus_per_node=8"),
    ),
    "two pools on two nodes": (
        ("parallel.replicas=2", "cluster.nodes=2"),
        ("pools.a.gpu=h100_sxm", "pools.b.gpu=h100_sxm", "cluster.nodes=2"),
    ),
    "disaggregated, on one node": (
        (
            "parallel.replicas=2",
            "parallel.prefill_replicas=1",
            "cluster.gpus_per_node=4",
        ),
        ("pools.d.role=decode", "pools.p.role=prefill", "cluster.gpus_per_node=4"),
    ),
    "disaggregated, between nodes, by layers": (
        (
            *("parallel.replicas=3", "parallel.prefill_replicas=1", "cluster.nodes=3"),
            "parallel.kv_transfer=layer-wise",
        ),
        (
            *("pools.p.role=prefill", "pools.d.role=decode", "pools.d.replicas=2"),
            *("cluster.nodes=3", "parallel.kv_transfer=layer-wise"),
        ),
    ),
    "a policy and a price of their own that are the same": (
        ("parallel.replicas=2", "cluster.nodes=2", "engine.scheduler=chunked-prefill"),
        (
            *("pools.a.scheduler=chunked-prefill", "cluster.nodes=2"),
            *("pools.b.usd_per_gpu_hour=2.5", "engine.scheduler=chunked-prefill"),
        ),
    ),
}


@pytest.mark.parametrize("name", ALIKE)
def test_pools_that_are_alike_are_todays_replicas_byte_for_byte(name: str) -> None:
    plain, pooled = (
        simulate(config_of(*LOAD, *words), Recording.ITERATIONS)
        for words in ALIKE[name]
    )
    same_but_for_pools(plain, pooled)


@pytest.mark.parametrize("words", [UNLIKE, APART], ids=["together", "apart"])
def test_every_law_holds_and_figures_of_pools_sum_up(words: tuple[str, ...]) -> None:
    """Checked at every event; energy, GPUs and cost by pool are those of the run."""
    result = run_config(config_of(*words), check=True)
    summary = result.summary
    names = ("fast", "old") if words is UNLIKE else ("p", "d")
    total = {
        key: [summary[f"pool_{name}_{key}"] for name in names]
        for key in ("num_gpus", "energy_j", "usd", "gpu_hours", "requests")
    }
    assert sum(total["num_gpus"]) == summary["num_gpus"] == 6
    assert math.fsum(total["energy_j"]) == pytest.approx(summary["energy_j"], rel=1e-12)
    hours = summary["num_gpus"] * summary["duration"] / 3600
    assert math.fsum(total["gpu_hours"]) == pytest.approx(hours)
    tokens = summary["total_input_tokens"] + summary["total_output_tokens"]
    usd = summary["usd_per_million_tokens"] * tokens / 1e6
    assert math.fsum(total["usd"]) == pytest.approx(usd)
    served = total["requests"]
    assert (sum(served) if words is UNLIKE else served[0]) == summary["completed"]
    assert summary["gpu"] == "h100_sxm + a100_sxm"


def test_prices_are_by_hand() -> None:
    """2 GPUs at 2.5 and 4 at 1 dollar an hour."""
    summary = run_config(config_of(*UNLIKE)).summary
    hours = summary["duration"] / 3600
    assert summary["pool_fast_usd"] == pytest.approx(2 * 2.5 * hours)
    assert summary["pool_old_usd"] == pytest.approx(4 * 1.0 * hours)


def test_an_idle_pool_draws_the_idle_power_of_its_own_gpu() -> None:
    """One request, round-robin: only the first pool runs; the others idle all along."""
    words = (*UNLIKE, "workload.num_requests=1")
    result = run_config(config_of(*words), check=True)
    summary, steps = result.summary, result.iterations
    idle_w = gpu("a100_sxm").power.idle_context_w
    assert summary["pool_old_requests"] == summary["pool_old_utilisation"] == 0
    assert summary["pool_old_mean_power_w"] == pytest.approx(4 * idle_w)
    busy_s = (steps["end_ns"] - steps["start_ns"]).sum() / 1e9
    share = summary["pool_fast_utilisation"]
    assert share == pytest.approx(busy_s / summary["duration"])
    alone = run_config(config_of("workload.num_requests=1", *LOAD[1:])).summary
    assert summary["pool_fast_energy_j"] == pytest.approx(alone["energy_j"])


def test_a_pool_runs_at_the_pace_of_its_own_gpus() -> None:
    """One request in each pool alone: latencies are those of its machine alone."""
    words = (*UNLIKE, "workload.num_requests=2", "workload.request_rate=0.001")
    pooled = run_config(config_of(*words)).requests
    assert pooled["replica"].to_list() == [0, 1]
    for row, name in enumerate(("h100_sxm", "a100_sxm")):
        alone = config_of(*words[:2], f"cluster.gpu={name}", *words[-2:])
        e2el_ms = run_config(alone).requests["e2el_ms"]
        assert pooled["e2el_ms"][row] == pytest.approx(e2el_ms[row])


@pytest.mark.parametrize(
    ("router", "replicas"),
    [
        ("round-robin", [0, 1, 0, 1]),
        ("least-outstanding-requests", [0, 1, 0, 0]),
    ],
)
def test_outstanding_work_sends_more_to_the_faster_pool(
    router: str, replicas: list[int]
) -> None:
    """Two kinds of replicas by hand: 100 + 40 and 1000 + 400 ns a prompt of 10.

    0 is done by 140 and 2, which comes at 200, by 340; 1 takes until 1400 on the slow
    one, so that who looks at outstanding requests sends 3 at 400 to the fast one too.
    """
    at = limits()
    engines = [Engine(scheduler("orca", at), at, 1000) for _ in range(2)]
    pricers = [LinearPricer(100, 10), LinearPricer(1000, 100, 0, 10)]
    cluster = Cluster(engines, pricers, ROUTERS[router]())
    work = requests((0, 10, 1), (0, 10, 1), (200, 10, 1), (400, 10, 1))
    run = cluster.run(work)
    assert [r.replica for r in run.records] == replicas
    ends = [140, 1400, 340, 540 if replicas[3] == 0 else 2800]
    assert [r.finish_ns for r in run.records] == ends


def test_caches_go_from_fast_to_slow_replicas_by_hand() -> None:
    """100 tokens from 2 GPUs of 2 bytes a token to 4 of 1, 8 and 50 ns of latency.

    Sending takes 100 ns at 2 bytes/ns, receiving 4 at 25: the sender decides. Decodes
    there take 1000 + 100 ns.
    """
    fast = replace(LINKS, latency_ns=8, gpu_bytes_per_token=2, node_bytes_per_s=2e9)
    slow = replace(LINKS, gpus=4, node_bytes_per_s=25e9)
    links = PooledLinks((fast, slow), (0, 0))
    assert links.transfer_ns(0, 1, 100) == 50 + 100
    at = limits()
    engines = [
        Engine(scheduler("orca", at), at, 1000, hands_over=r == 0) for r in range(2)
    ]
    cluster = Cluster(
        engines,
        [LinearPricer(), LinearPricer(1000, 100)],
        ROUTERS["round-robin"](),
        split=Disaggregated(Disaggregation(1, links), ROUTERS["round-robin"](1)),
    )
    run = cluster.run(requests((0, 100, 2)))
    assert tokens_of(run) == [[500, 500 + 150 + 1100]]


def test_the_slower_side_of_a_link_decides_by_hand() -> None:
    """H100 at TP2 to A100 at TP4, Qwen3-30B-A3B: 4 KV heads, 98,304 bytes a token.

    Between nodes: 49,152 bytes a GPU out at 50 GB/s, 24,576 in at 25 GB/s, both
    983.04 ns a token. To TP8 there are two copies: 98,304 a GPU go out, 1966.08 ns.
    """
    common = {"latency_ns": 10_000, "replicas_per_node": 1}
    h100 = KvLinks(
        gpu_bytes_per_token=49_152,
        gpus=2,
        node_bytes_per_s=450e9,
        network_bytes_per_s=50e9,
        **common,
    )
    a100 = replace(
        h100,
        gpu_bytes_per_token=24_576,
        gpus=4,
        node_bytes_per_s=300e9,
        network_bytes_per_s=25e9,
    )
    links = PooledLinks((h100, a100, replace(a100, gpus=8)), (0, 1, 2))
    assert links.transfer_ns(0, 1, 1000) == 10_000 + 983_040
    assert links.transfer_ns(0, 2, 1000) == 10_000 + 1_966_080
    assert a100.transfer_bytes(1000) == h100.transfer_bytes(1000)


@cases(8)
@given(
    tokens=st.integers(1, 10**6),
    size=st.integers(1, 16),
    gpu_bytes=st.floats(1, 1e6),
    bandwidth=st.floats(1e6, 1e12),
    per_node=st.integers(1, 3),
)
def test_links_of_pools_that_are_alike_are_todays(
    tokens: int, size: int, gpu_bytes: float, bandwidth: float, per_node: int
) -> None:
    """To the nanosecond, whatever the numbers."""
    own = KvLinks(
        latency_ns=17,
        gpu_bytes_per_token=gpu_bytes,
        gpus=size,
        node_bytes_per_s=bandwidth,
        network_bytes_per_s=bandwidth / 7,
        replicas_per_node=per_node,
    )
    pooled = PooledLinks((own,) * 4, tuple(r // per_node for r in range(4)))
    for target in range(1, 4):
        assert pooled.transfer_ns(0, target, tokens) == own.transfer_ns(
            0, target, tokens
        )


@cases(8)
@given(
    case=scenarios(),
    names=st.lists(st.sampled_from(sorted(SCHEDULERS)), min_size=4, max_size=4),
    paces=st.lists(st.integers(1, 30), min_size=4, max_size=4),
    kv_transfer=st.sampled_from([None, WHOLE, CHUNK_WISE, LAYER_WISE]),
    prefill=st.integers(1, 3),
)
def test_random_unlike_replicas_keep_every_law_and_fast_forward_is_the_same(
    case: Scenario,
    names: list[str],
    paces: list[int],
    kv_transfer: str | None,
    prefill: int,
) -> None:
    """Each with a policy, a pace and a size of its own, together or apart."""
    links = PooledLinks(
        tuple(replace(LINKS, gpus=p, node_bytes_per_s=p * 1e8) for p in paces),
        (0, 0, 1, 2),
    )
    apart = kv_transfer is not None

    def served(*, fast: bool) -> ClusterRun:
        split = None
        if kv_transfer is not None:
            pools = Disaggregation(prefill, links, kv_transfer)
            split = Disaggregated(pools, ROUTERS[case.router](1))
        engines = [
            Engine(
                scheduler_of(name, case),
                case.at,
                case.num_blocks + 3 * pace,
                hands_over=apart and r < prefill,
            )
            for r, (name, pace) in enumerate(zip(names, paces, strict=True))
        ]
        pricers = [ManyPricer(10 * pace, pace, 1, 1) for pace in paces]
        cluster = Cluster(
            engines, pricers, ROUTERS[case.router](), fast_forward=fast, split=split
        )
        return cluster.run(case.requests, observer=Tape())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica_module, "_FEWEST", 2)
        assert_same(served(fast=True), served(fast=False))


def test_sums_that_do_not_agree_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that loses a request, or joules, breaks a law."""
    kept = pool_summary._requests
    monkeypatch.setattr(pool_summary, "_requests", lambda *a: kept(*a) - 1)
    with pytest.raises(InvariantError, match="run-totals"):
        run_config(config_of(*UNLIKE), check=True)
