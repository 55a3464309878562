"""Prefill and decode on replicas of their own: by hand, by law, by a slow twin."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.engine import Engine
from sim.events import (
    Stalled,
)
from sim.handover import Disaggregation, Handover, KvLinks
from sim.kv_stream import WHOLE
from sim.plan import StepPlan
from sim.queues import QUEUES
from sim.queues.vtc import VirtualTokenCounter
from sim.request import RequestRecord
from sim.routers import ROUTERS
from sim.schedulers import SCHEDULERS
from sim.shell.cluster import Cluster, ClusterRun, Disaggregated
from sim.transfer_events import (
    TransferEnded,
    TransferStarted,
)
from sim.view import EngineLimits, PrefillState, Scheduler, SchedulerView
from tests.sim.pricing import (
    QUICK,
    Recorder,
    Scenario,
    limits,
    requests,
    scenarios,
    scheduler_of,
    serve,
)
from tests.sim.tape import Tape, fast_and_slow
from tests.sim.test_fast_forward import ManyPricer, assert_same

# A transfer takes 50 ns + 1 per token inside a node of two replicas, 10 across.
LINKS = KvLinks(
    latency_ns=50,
    gpu_bytes_per_token=1,
    gpus=2,
    node_bytes_per_s=1e9,
    network_bytes_per_s=1e8,
    replicas_per_node=2,
)


class Views(Recorder):
    """A policy that keeps what it was shown."""

    def __init__(self, inner: Scheduler) -> None:
        super().__init__(inner)
        self.views: list[SchedulerView] = []

    def plan(self, view: SchedulerView) -> StepPlan:
        self.views.append(view)
        return super().plan(view)


def disaggregated(
    name: str,
    case: Scenario,
    prefill: int = 1,
    *,
    links: KvLinks = LINKS,
    frontend_ns: int = 0,
    fast: bool = True,
    tape: Tape | None = None,
    blocks: tuple[int, ...] = (),
    kv_transfer: str = WHOLE,
    detailed: bool = True,
) -> ClusterRun:
    """Serve a scenario with that many of its replicas for prefill."""
    engines = [
        Engine(
            scheduler_of(name, case),
            case.at,
            blocks[r] if blocks else case.num_blocks,
            QUEUES[case.queue](),
            hands_over=r < prefill,
            prefix_caching=case.prefix_caching,
        )
        for r in range(case.replicas)
    ]
    p = case.pricer
    make = ROUTERS[case.router]
    cluster = Cluster(
        engines,
        ManyPricer(p.base_ns, p.row_ns, p.context_ns, p.token_layer_ns),
        make(),
        case.max_concurrency,
        frontend_ns,
        fast_forward=fast,
        detailed=detailed,
        split=Disaggregated(Disaggregation(prefill, links, kv_transfer), make(1)),
    )
    return cluster.run(case.requests, observer=tape or Tape())


def tokens_of(run: ClusterRun) -> list[list[int]]:
    return [
        [
            t
            for part in r.runs
            for t in (
                part.first_ns,
                *run.logs[r.replica].decode_end_ns[part.start : part.stop],
            )
        ]
        for r in run.records
    ]


def test_one_prefill_and_one_decode_replica_by_hand() -> None:
    """4 layers; 100 ns + 10 per decode + 1 per prompt token and layer.

    0 is prefilled by 500 and moved by 650. 1 and 2 are prefilled together from 500 to
    100 + 4 x 250 later; their caches go one after the other, 250 and 100 ns.
    """
    work = requests((0, 100, 3), (10, 200, 2), (20, 50, 2), (3000, 8, 1))
    tape = Tape()
    run = disaggregated("orca", Scenario(work, limits(), replicas=2), tape=tape)
    assert tokens_of(run) == [[500, 760, 870], [1600, 1960], [1600, 2070], [3132]]
    moved = [(e.begin_ns, e.end_ns) for e in tape.of(TransferStarted)]  # type: ignore[attr-defined]
    assert moved == [(500, 650), (1600, 1850), (1850, 1950)]
    assert [r.replica for r in run.records] == [1, 1, 1, 0]  # 3 ends where it began
    assert [r.prefill_replica for r in run.records] == [0, 0, 0, -1]


def test_between_nodes_the_network_carries_the_cache() -> None:
    """Replica 0 of node 0 to replica 2 of node 1: 50 + 10 x 100 ns."""
    work = requests((0, 100, 2))
    case = Scenario(work, limits(), replicas=3)
    assert tokens_of(disaggregated("orca", case, 2)) == [[500, 500 + 1050 + 110]]


def test_a_full_decode_replica_makes_the_prefill_replica_wait() -> None:
    """Blocks of 10: decode holds 6, so that 0 (40 + 3 tokens) keeps 1 out.

    Prefill holds 9 blocks: 0 and 1 (4 each) are parked there, 2 waits for 1 to leave.
    0: prefilled 0-420 with 1 (100 + 4 x 80), moved by 510, decodes from there on.
    """
    work = requests((0, 40, 4), (0, 40, 2), (0, 40, 2))
    at = limits(block_size=10, max_model_len=60)
    tape = Tape()
    case = Scenario(work, at, replicas=2)
    run = disaggregated("orca", case, tape=tape, blocks=(9, 6))
    assert tokens_of(run) == [
        [420, 620, 730, 840],  # moved by 510, then 110 each
        [420, 1040],  # pulled at 840, moved by 930, 110
        # blocks at 510 for 2 on the prefill replica: 100 + 4 x 40; pulled at 1040
        [770, 1240],
    ]
    stalls = [(e.time_ns, e.replica) for e in tape.of(Stalled)]  # type: ignore[attr-defined]
    assert (420, 0) in stalls  # 2 waits for blocks, and nothing can run


def test_a_fair_queue_is_charged_where_tokens_are_decoded() -> None:
    """Prompts of 10 tokens and a first token each there, twice 4 more tokens here."""
    work = requests((0, 10, 5), (0, 10, 5))
    work = tuple(replace(request, client=request.id) for request in work)
    case, queues = Scenario(work, limits()), [VirtualTokenCounter() for _ in range(2)]
    engines = [
        Engine(scheduler_of("orca", case), case.at, 100, queue, hands_over=prefill)
        for queue, prefill in zip(queues, (True, False), strict=True)
    ]
    router = ROUTERS["round-robin"]
    split = Disaggregated(Disaggregation(1, LINKS, WHOLE), router())
    Cluster(engines, ManyPricer(), router(), split=split).run(work)
    assert [queue.served for queue in queues] == [{0: 12, 1: 12}, {0: 8, 1: 8}]


PARAMETERS = {
    "queue": st.sampled_from(sorted(QUEUES)),
    "prefill": st.integers(1, 2),
    "decode": st.integers(1, 2),
    "frontend_ns": st.sampled_from([0, 37]),
    "latency_ns": st.sampled_from([0, 5, 500]),
}


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@QUICK
@given(
    case=st.booleans().flatmap(lambda closed: scenarios(closed_loop=closed)),
    **PARAMETERS,
)
def test_random_runs_keep_every_law_and_fast_forward_is_the_same(
    name: str,
    case: Scenario,
    queue: str,
    prefill: int,
    decode: int,
    frontend_ns: int,
    latency_ns: int,
) -> None:
    """KV blocks, tokens, layers, time, links: the checker looks at every event."""
    case = replace(case, queue=queue, replicas=prefill + decode)
    links = replace(LINKS, latency_ns=latency_ns)
    fast, slow, tape = fast_and_slow(
        partial(
            disaggregated, name, case, prefill, links=links, frontend_ns=frontend_ns
        )
    )
    assert_same(fast, slow)
    started = tape.of(TransferStarted)
    assert len(started) == len(tape.of(TransferEnded))
    for record in slow.records:
        assert (record.finish_ns is None) == (record.rejected is not None)
        moved = record.rejected is None and record.output_tokens > 1
        assert (record.prefill_replica >= 0) == moved
    assert len(started) == sum(r.prefill_replica >= 0 for r in slow.records)


@QUICK
@given(case=scenarios())
def test_with_one_request_at_a_time_only_the_transfer_differs(case: Scenario) -> None:
    """Alone in both systems: the same times, later by the transfer after the first."""
    rows = [
        (k * 10**7, r.prompt_tokens, r.output_tokens)
        for k, r in enumerate(case.requests)
    ]
    case = replace(case, requests=requests(*rows))
    together = serve("orca", case)
    apart = disaggregated("orca", replace(case, replicas=2))
    for one, record in zip(together.tokens, apart.records, strict=True):
        if record.rejected is None and not record.preemptions:
            moved_ns = 50 + record.request.prompt_tokens
            expected = [one[0], *(t + moved_ns for t in one[1:])]
            assert tokens_of(apart)[record.request.id] == expected


def test_transfer_times_are_latency_and_bytes_over_bandwidth() -> None:
    """1000 tokens x 49,152 B a GPU over 450 GB/s and over 50 GB/s, from 10 us on."""
    links = KvLinks(
        latency_ns=10_000,
        gpu_bytes_per_token=49_152,
        gpus=2,
        node_bytes_per_s=450e9,
        network_bytes_per_s=50e9,
        replicas_per_node=4,
    )
    assert links.transfer_ns(0, 3, 1000) == 10_000 + 109_227
    assert links.transfer_ns(3, 4, 1000) == 10_000 + 983_040
    assert links.transfer_bytes(1000) == 98_304_000


def test_decode_slots_bound_what_is_pulled() -> None:
    """One slot: the second cache is asked for when the first request has left."""
    at: EngineLimits = limits(max_num_seqs=1)
    tape = Tape()
    work = requests((0, 10, 3), (0, 10, 3))
    disaggregated("orca", Scenario(work, at, replicas=2), tape=tape)
    asked = [e.time_ns for e in tape.of(TransferStarted)]  # type: ignore[attr-defined]
    # 0: prefilled by 140, moved by 200, done at 420; 1 was prefilled by 280.
    assert asked == [140, 420]


def test_a_prompt_computed_again_holds_a_slot() -> None:
    """Of two, with one that decodes: an offered request waits for either to end."""
    case = Scenario(requests((0, 10, 3)), limits(max_num_seqs=2))
    engine = Engine(scheduler_of("orca", case), case.at, 100)
    record = RequestRecord(request=case.requests[0], arrival_ns=0, runs=[])
    engine.intake.offered.append(Handover(record, 10, 140, source=0))
    engine.decoding.join(7, 10, 5)
    engine.prefilling[8] = PrefillState(8, 12)
    assert engine.pull() is None
    del engine.prefilling[8]
    assert engine.pull() is not None


def test_a_policy_sees_the_slots_of_caches_on_their_way() -> None:
    """They are taken, though nothing of them runs yet."""
    case = Scenario(requests((0, 10, 3)), limits())
    policy = Views(scheduler_of("orca", case))
    engine = Engine(policy, case.at, 100)
    record = RequestRecord(request=case.requests[0], arrival_ns=0, runs=[])
    engine.decoding.join(7, 10, 5)
    engine.plan()
    engine.intake.offered.append(Handover(record, 10, 140, source=0))
    engine.pull()
    engine.plan()
    assert [view.incoming for view in policy.views] == [0, 1]


@pytest.mark.parametrize("frontend_ns", [0, 37])
@QUICK
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2000), st.integers(1, 400), st.integers(1, 12)),
        min_size=1,
        max_size=20,
    )
)
def test_one_sequence_each_is_a_tandem_queue(
    frontend_ns: int, rows: list[tuple[int, int, int]]
) -> None:
    """Two single servers in a row, as a recursion, to the nanosecond.

    Prefill: P(n) = max(arrival, P(n - 1)) + 100 + 4 x prompt; a parked cache holds
    blocks, of which there are plenty, and no slot. Decode: the cache is pulled when
    the slot is free, D(n) = max(P(n), D(last)) + 50 + prompt + 110 (output - 1). A
    request of one token ends at P(n).
    """
    now, work = 0, []
    for gap, prompt, output in rows:
        now += gap
        work.append((now, prompt, output))
    at = limits(max_num_seqs=1)
    case = Scenario(requests(*work), at, replicas=2)
    run = disaggregated("orca", case, frontend_ns=frontend_ns)
    prefilled = decoded = 0
    for record, (arrival, prompt, output) in zip(run.records, work, strict=True):
        start = max(arrival + frontend_ns, prefilled)
        assert record.first_scheduled_ns == start
        prefilled = start + 100 + 4 * prompt
        assert record.first_token_ns == prefilled
        finish = prefilled
        if output > 1:
            decoded = max(prefilled, decoded) + 50 + prompt + 110 * (output - 1)
            finish = decoded
        assert record.finish_ns == finish
