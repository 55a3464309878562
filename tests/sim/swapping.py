"""Runs of engines that swap preempted requests to the host."""

from __future__ import annotations

import numpy as np

from sim.energy import PowerModel
from sim.events import Observer
from sim.host_link import HostLink, swap_pricer
from sim.outages import Outages
from sim.queues import QUEUES
from sim.routers import ROUTERS
from sim.shell.cluster import Cluster, ClusterRun
from sim.swapping import SwappingEngine
from tests.sim.pricing import Scenario, limits, requests, scheduler_of
from tests.sim.test_fast_forward import ManyPricer

# Two boards: 300 W while kernels run, 200 W waiting; 50 pJ per HBM byte.
BOARDS = PowerModel(
    num_gpus=2,
    run_w=300.0,
    gap_w=200.0,
    idle_w=100.0,
    cap_w=700.0,
    hbm_pj_per_byte=50.0,
    pj_per_flop=1.0,
)
LINK = HostLink(block_ns=7, block_bytes=1000)
# Prompts of one block each, three blocks: both cannot decode at once.
PAIR = Scenario(
    requests((0, 2, 4), (0, 2, 4)), limits(block_size=2, max_model_len=6), num_blocks=3
)


def engines_of(name: str, case: Scenario, host_blocks: int) -> list[SwappingEngine]:
    """The engines of a scenario, each with its own host pool."""
    return [
        SwappingEngine(
            scheduler_of(name, case),
            case.at,
            case.num_blocks,
            host_blocks,
            QUEUES[case.queue](),
        )
        for _ in range(case.replicas)
    ]


def iterate(engine: SwappingEngine, *starts_ns: int) -> None:
    """Whole iterations of a nanosecond each, as the policy plans them."""
    for start_ns in starts_ns:
        plan = engine.plan()
        assert plan is not None
        engine.begin(plan, start_ns)
        engine.finish(plan, start_ns + 1)


def swapped(
    name: str,
    case: Scenario,
    host_blocks: int,
    *,
    link: HostLink = LINK,
    away: Outages | None = None,
    fast: bool = True,
    observer: Observer | None = None,
) -> tuple[ClusterRun, list[SwappingEngine]]:
    """Serve a scenario."""
    engines, p = engines_of(name, case, host_blocks), case.pricer
    pricer = ManyPricer(p.base_ns, p.row_ns, p.context_ns, p.token_layer_ns)
    cluster = Cluster(
        engines,
        swap_pricer(pricer, link, BOARDS),
        ROUTERS[case.router](),
        case.max_concurrency,
        fast_forward=fast,
    )
    if away is not None:
        cluster.suffer(away)
    return cluster.run(case.requests, observer=observer), engines


def tokens_of(run: ClusterRun) -> list[list[int]]:
    """Token times of each request."""
    return [
        [
            int(t)
            for part in record.runs
            for t in (
                part.first_ns,
                *np.asarray(run.logs[record.replica].decode_end_ns)[
                    part.start : part.stop
                ],
            )
        ]
        for record in run.records
    ]
