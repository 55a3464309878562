"""Iterations priced many at a time are those priced one by one, bit for bit."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.build import build_machine, build_workload_of
from sim.build_cluster import build_cluster
from sim.config_file import load_config
from sim.decode_batch import DecodeBatch
from sim.engine import Engine
from sim.iteration_log import IterationLog
from sim.log_stretch import DecodeStretch, write_out
from sim.plan import LayerSpan, StepPlan
from sim.results import run_result
from sim.routers import ROUTERS
from sim.schedulers import SCHEDULERS
from sim.shell.cluster import Cluster, ClusterRun
from sim.step import (
    NUM_COUNTS,
    NUM_JOULES,
    DecodeCosts,
    Float64,
    Int64,
    decode_joules,
)
from tests.sim.pricing import (
    QUICK,
    LinearPricer,
    Scenario,
    limits,
    requests,
    scenarios,
    scheduler_of,
)
from tests.sim.tape import Tape, fast_and_slow


@dataclass(frozen=True)
class ManyPricer(LinearPricer):
    """Prices runs of decodes by pricing each."""

    def price_decodes(
        self, decoding: int, context_tokens: int, steps: int
    ) -> DecodeCosts:
        plan = StepPlan((LayerSpan(0, 1),))
        costs = [
            self.price(plan, decoding, context_tokens + k * decoding)
            for k in range(steps)
        ]
        counts = np.array([cost[:NUM_COUNTS] for cost in costs], dtype=np.int64)
        return DecodeCosts(counts[:, 0], tuple(counts.T), NoPower())


class NoPower:
    """As free as :class:`LinearPricer`."""

    def split_many(self, *, duration_ns: Int64, **amounts: Int64) -> Float64:
        return np.zeros((duration_ns.size, NUM_JOULES))


def columns(log: IterationLog) -> Mapping[str, object]:
    """Everything a log holds."""
    names = [name for name in (*dir(log), *vars(log)) if name[0] != "_"]
    every = {name: getattr(log, name) for name in names} | vars(log.chunks)
    arrays = {k: list(v) for k, v in every.items() if isinstance(v, array)}
    assert len(arrays) == 16
    return arrays | {"totals": log.totals, "last_end_ns": log.last_end_ns}


def blocks_taken(batch: DecodeBatch, steps: int) -> list[int]:
    """New KV blocks up to and including each of the next ticks, as a log has them."""
    costs = DecodeCosts(np.ones(steps, dtype=np.int64), (), NoPower())
    cycle = batch.cycle()
    stretch = DecodeStretch(costs, np.arange(steps), cycle)
    _, _, since = write_out([stretch], np.array([0]))
    return [cycle[0] + blocks for blocks in since.tolist()]


def run(
    name: str,
    case: Scenario,
    frontend_ns: int,
    *,
    fast: bool,
    tape: Tape | None = None,
) -> ClusterRun:
    engines = [
        Engine(
            scheduler_of(name, case),
            case.at,
            case.num_blocks,
            case.waiting(),
            prefix_caching=case.prefix_caching,
        )
        for _ in range(case.replicas)
    ]
    p = case.pricer
    pricer = ManyPricer(p.base_ns, p.row_ns, p.context_ns, p.token_layer_ns)
    cluster = Cluster(
        engines,
        pricer,
        ROUTERS[case.router](),
        case.max_concurrency,
        frontend_ns,
        fast_forward=fast,
    )
    return cluster.run(case.requests, observer=tape)


def assert_same(fast: ClusterRun, slow: ClusterRun) -> None:
    assert fast.records == slow.records
    assert [columns(log) for log in fast.logs] == [columns(log) for log in slow.logs]


@pytest.mark.parametrize("name", SCHEDULERS)
@QUICK
@given(
    case=st.booleans().flatmap(
        lambda closed: scenarios(max_replicas=3, closed_loop=closed, ahead=True)
    ),
    frontend_ns=st.sampled_from([0, 37]),
    fewest=st.sampled_from([2, 6]),
)
def test_random_runs_are_the_same(
    name: str, case: Scenario, frontend_ns: int, fewest: int
) -> None:
    fast, slow, _ = fast_and_slow(partial(run, name, case, frontend_ns), fewest)
    assert_same(fast, slow)


def test_an_arrival_at_the_end_of_an_iteration_is_seen_by_the_next() -> None:
    """One request decodes, iterations of 110 ns; another arrives around an end."""
    for arrival in (1000, 1103, 1104, 1105, 1214):
        case = Scenario(requests((0, 4, 20), (arrival, 4, 2)), limits(num_layers=1))
        fast = run("chunked-prefill", case, 0, fast=True)
        assert_same(fast, run("chunked-prefill", case, 0, fast=False))
        first_ns = fast.records[1].first_scheduled_ns
        assert first_ns == min(end for end in fast.logs[0].end_ns if end >= arrival)


def test_runs_stop_at_a_completion_and_when_blocks_run_out() -> None:
    batch = DecodeBatch(block_size=4)
    batch.join(1, stored=5, remaining=9)
    batch.join(2, stored=8, remaining=30)
    assert batch.steps_to_completion() == 9
    # Request 2 needs a block at once, request 1 after three more tokens.
    assert blocks_taken(batch, 9) == [1, 1, 1, 2, 3, 3, 3, 4, 5]
    assert [batch.steps_within(free) for free in range(6)] == [0, 3, 4, 7, 8, 11]


@given(
    members=st.lists(
        st.tuples(st.integers(1, 30), st.integers(1, 40)), min_size=1, max_size=6
    ),
    block_size=st.integers(1, 7),
    ticks=st.integers(0, 12),
    free=st.integers(0, 9),
)
@QUICK
def test_blocks_of_a_run_are_those_of_its_steps(
    members: list[tuple[int, int]], block_size: int, ticks: int, free: int
) -> None:
    """Against a copy that advances tick by tick."""
    batch, twin = DecodeBatch(block_size), DecodeBatch(block_size)
    for each in (batch, twin):
        for _ in range(ticks):
            each.advance()
        for i, (stored, remaining) in enumerate(members):
            each.join(i, stored, remaining + 100)
    needs = []
    for _ in range(80):
        needs.append(twin.blocks_needed())
        twin.advance()
    taken = list(accumulate(needs))
    assert blocks_taken(batch, 80) == taken
    assert [batch.blocks_within(k) for k in range(1, 81)] == taken
    assert batch.steps_within(free) == sum(total <= free for total in taken)


REAL = (
    {"workload.request_rate": 1.5, "workload.num_requests": 12},
    {
        "engine.scheduler": "multiplexed-prefill",
        "workload.request_rate": 1.5,
        "workload.num_requests": 12,
    },
    {
        "cluster.gpus_per_node": 4,
        "parallel.tensor_parallel_size": 1,
        "parallel.data_parallel_size": 4,
        "parallel.expert_parallel_size": 4,
        "moe.placement": "lpt",
        "moe.communication": "ep_home",
        "workload.request_rate": 2.0,
        "workload.num_requests": 12,
    },
    {
        "cluster.gpus_per_node": 4,
        "parallel.tensor_parallel_size": 4,
        "parallel.expert_parallel_size": 4,
        "moe.placement": "lpt",
        "moe.statistics": "preset",
        "moe.topics": 2,
        "moe.topic_period_s": 2.0,
        "moe.rebalance_interval": 50,
        "workload.request_rate": 2.0,
        "workload.num_requests": 12,
    },
    {
        "model.name": "openai/gpt-oss-20b",
        "cluster.gpus_per_node": 1,
        "parallel.tensor_parallel_size": 1,
        "engine.scheduler": "chunked-prefill",
        "cluster.hbm_bandwidth_scale": 1.3,
        "workload.dataset": "sharegpt",
        "workload.request_rate": 8.0,
        "workload.num_requests": 40,
    },
    {
        "model.name": "openai/gpt-oss-20b",
        "cluster.gpus_per_node": 3,
        "parallel.tensor_parallel_size": 1,
        "parallel.pipeline_parallel_size": 3,
        "engine.num_micro_batches": 2,
        "engine.scheduler": "adaptive-layered-prefill",
        "workload.dataset": "sharegpt",
        "workload.request_rate": 4.0,
        "workload.num_requests": 25,
    },
    {
        "model.name": "Qwen/Qwen3-8B",
        "cluster.gpu": "a100_sxm",
        "parallel.tensor_parallel_size": 1,
        "parallel.replicas": 2,
        "engine.scheduler": "orca",
        "engine.kv_cache_tokens": 20_000,
        "workload.dataset": "sharegpt",
        "workload.max_concurrency": 30,
        "workload.num_requests": 60,
    },
    {
        "model.name": "Qwen/Qwen3-8B",
        "cluster.gpu": "a100_sxm",
        "cluster.gpus_per_node": 1,
        "parallel.tensor_parallel_size": 1,
        "engine.scheduler": "chunked-prefill",
        "engine.preemption_mode": "swap",
        "engine.kv_cache_tokens": 17_000,
        "workload.dataset": "sharegpt",
        "workload.max_concurrency": 40,
        "workload.num_requests": 60,
    },
    {
        "model.name": "Qwen/Qwen3-8B",
        "parallel.tensor_parallel_size": 1,
        "parallel.replicas": 3,
        "parallel.prefill_replicas": 1,
        "parallel.router": "power-of-two-choices",
        "cluster.nodes": 2,
        "engine.scheduler": "dynamic-chunked-prefill",
        "engine.tbt_target_ms": 30.0,
        "engine.queue": "vtc",
        "engine.kv_cache_tokens": 20_000,
        "workload.num_clients": 3,
        "workload.dataset": "sharegpt",
        "workload.request_rate": 12.0,
        "workload.num_requests": 60,
    },
)


REAL_SOME = [*REAL[:2], *(pytest.param(s, marks=pytest.mark.long) for s in REAL[2:])]
"""Two of them in the normal suite."""


@pytest.mark.parametrize("settings", REAL_SOME)
def test_results_of_real_kernels_are_the_same(settings: dict[str, object]) -> None:
    config = load_config(None, (), settings)
    machine, workload = build_machine(config), build_workload_of(config)
    results = []
    for fast in (True, False):
        cluster = build_cluster(config, machine, workload, fast_forward=fast)
        finished = cluster.run(workload.requests)
        results.append(run_result(config, machine, workload, finished))
    fast_run, slow_run = results
    assert fast_run.summary == slow_run.summary
    for name in ("requests", "timeseries", "iterations"):
        assert getattr(fast_run, name).equals(getattr(slow_run, name)), name


@pytest.mark.parametrize("settings", REAL_SOME)
@pytest.mark.parametrize("factor", [1.0, 1.37])
def test_a_vector_of_prices_is_the_prices(
    settings: dict[str, object], factor: float
) -> None:
    """Inside the tables, beyond them, and with an anchored kernel factor."""
    machine = build_machine(load_config(None, (), settings))
    pricer = machine.pricer
    pricer._kernel_factor = factor
    plan = StepPlan((LayerSpan(0, machine.model.num_layers),))
    for decoding, context in ((1, 1), (3, 500), (64, 400_000), (256, 60_000_000)):
        many = pricer.price_decodes(decoding, context, 40)
        energy_j = decode_joules([(many, 40)])
        for k in range(40):
            one = pricer.price(plan, decoding, context + k * decoding)
            counts = tuple(
                each if isinstance(each, int) else int(each[k]) for each in many.counts
            )
            assert counts == one[:NUM_COUNTS]
            assert tuple(energy_j[k]) == one[NUM_COUNTS:]
            assert many.duration_ns[k] == one.duration_ns
