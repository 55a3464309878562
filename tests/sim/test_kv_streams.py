"""KV caches that move while they are computed: by hand, by law, by closed forms."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.config_file import load_config
from sim.errors import ConfigError
from sim.handover import KvLinks
from sim.kv_stream import (
    CHUNK_WISE,
    LAYER_WISE,
    WHOLE,
    Growth,
    KvProgress,
    growths,
)
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.runner import run_config
from sim.schedulers import SCHEDULERS
from sim.transfer_events import (
    Offered,
    PartSent,
    StreamWithdrawn,
    TransferEnded,
)
from tests.cases import cases
from tests.sim.pricing import (
    Scenario,
    limits,
    requests,
    scenarios,
    step_cost,
)
from tests.sim.tape import Tape, fast_and_slow
from tests.sim.test_disaggregation import PARAMETERS, disaggregated, tokens_of
from tests.sim.test_fast_forward import assert_same

# A message takes 8 ns + 1 per token (4 layers of it) inside a node of two replicas.
LINKS = KvLinks(
    latency_ns=8,
    gpu_bytes_per_token=1,
    gpus=2,
    node_bytes_per_s=1e9,
    network_bytes_per_s=1e8,
    replicas_per_node=4,
)


def parts_of(tape: Tape) -> list[tuple[int, int, int]]:
    """(begin, end, layer-tokens) of every message."""
    sent = tape.of(PartSent)
    return [(e.begin_ns, e.end_ns, e.layer_tokens) for e in sent]  # type: ignore[attr-defined]


def test_layers_leave_while_later_ones_are_computed_by_hand() -> None:
    """4 layers of 100 tokens, 500 ns in all: a layer is there every 125 ns.

    A quarter of the cache is on a link for 8 + 25 ns; the last one leaves at 500, so
    the first decode waits for 33 ns instead of 108.
    """
    case = Scenario(requests((0, 100, 3)), limits(), replicas=2)
    tape = Tape()
    run = disaggregated("orca", case, links=LINKS, tape=tape, kv_transfer=LAYER_WISE)
    leave = [125, 250, 375, 500]
    assert parts_of(tape) == [(t, t + 33, 100) for t in leave]
    assert tokens_of(run) == [[500, 533 + 110, 533 + 220]]
    whole = disaggregated("orca", case, links=LINKS)
    assert tokens_of(whole) == [[500, 608 + 110, 608 + 220]]
    log = run.streams
    assert log is not None
    assert (log.messages, log.moved, log.exposed_ns) == (4, 1, 33)
    assert whole.streams is None


def test_a_slow_link_sends_all_that_is_there_at_once_by_hand() -> None:
    """10 times slower: a layer takes 258 ns, longer than the 125 ns of computing it.

    125: layer 1, until 383. By then 2 and 3 are there: 508 ns, until 891. By then 4:
    258, until 1149; whole it would have been 500 + 1008.
    """
    links = replace(LINKS, node_bytes_per_s=1e8)
    case = Scenario(requests((0, 100, 2)), limits(), replicas=2)
    tape = Tape()
    run = disaggregated("orca", case, links=links, tape=tape, kv_transfer=LAYER_WISE)
    assert parts_of(tape) == [(125, 383, 100), (383, 891, 200), (891, 1149, 100)]
    assert tokens_of(run) == [[500, 1149 + 110]]


def test_chunks_leave_when_they_are_done_by_hand() -> None:
    """Chunks of 40, 40 and 20 of all layers, ends at 260, 520 and 700.

    Chunk by chunk 48 ns each, then 28 for the last. Layer by layer 10 layer-tokens... a
    layer of 40 tokens every 65 ns, 18 ns on the link, the last of 20 at 700, 13 ns.
    """
    at = limits(max_num_batched_tokens=40, max_num_seqs=8)
    case = Scenario(requests((0, 100, 2)), at, replicas=2)
    tape = Tape()
    run = disaggregated(
        "chunked-prefill", case, links=LINKS, tape=tape, kv_transfer=CHUNK_WISE
    )
    assert parts_of(tape) == [(260, 308, 160), (520, 568, 160), (700, 728, 80)]
    assert tokens_of(run) == [[700, 728 + 110]]
    tape = Tape()
    run = disaggregated(
        "chunked-prefill", case, links=LINKS, tape=tape, kv_transfer=LAYER_WISE
    )
    ends = [*range(65, 521, 65), *range(565, 701, 45)]
    took = [18] * 8 + [13] * 4
    assert [(b, e - b) for b, e, _ in parts_of(tape)] == list(
        zip(ends, took, strict=True)
    )
    assert tokens_of(run) == [[700, 713 + 110]]


@pytest.mark.parametrize("kv_transfer", [CHUNK_WISE, LAYER_WISE])
def test_layer_groups_leave_when_they_are_done_by_hand(kv_transfer: str) -> None:
    """Layered prefill in two groups of two layers, 100 + 200 ns each.

    Half the cache leaves at 300, 58 ns, the rest at 600; a group leaves whole in
    either way, for its layers are not alike with those of decodes only.
    """
    at, tape = limits(), Tape()
    case = Scenario(requests((0, 100, 2)), at, replicas=2, groups=2, scale=600)
    run = disaggregated(
        "layered-prefill", case, links=LINKS, tape=tape, kv_transfer=kv_transfer
    )
    assert parts_of(tape) == [(300, 358, 200), (600, 658, 200)]
    assert tokens_of(run) == [[600, 658 + 110]]


def test_a_late_decode_replica_gets_all_in_one_message() -> None:
    """One slot there: 1 is pulled when 0 has left, as a whole, as without streams.

    0: prefilled by 140, its layers leave at 35, 70, 105 and 140, 8 + 2.5 ns (banker's
    rounding: 10); decodes at 150 + 110 each, until 370. 1 was prefilled by 280.
    """
    at = limits(max_num_seqs=1)
    work = requests((0, 10, 3), (0, 10, 3))
    tape = Tape()
    case = Scenario(work, at, replicas=2)
    run = disaggregated("orca", case, links=LINKS, tape=tape, kv_transfer=LAYER_WISE)
    first = [(t, t + 10, 10) for t in (35, 70, 105, 140)]
    assert parts_of(tape) == [*first, (370, 388, 40)]
    assert tokens_of(run) == [[140, 260, 370], [280, 498, 608]]


def test_a_request_that_ends_with_its_first_token_is_withdrawn() -> None:
    """0 owes one token: three of its four layers were sent in vain, the last never.

    1 waits for the slot that the decode replica keeps for 0 until its end at 500, and
    is prefilled by 1000; its layers leave from 625 on.
    """
    work = requests((0, 100, 1), (0, 100, 2))
    tape = Tape()
    case = Scenario(work, limits(max_num_seqs=1), replicas=2)
    run = disaggregated("orca", case, links=LINKS, tape=tape, kv_transfer=LAYER_WISE)
    leave = (125, 250, 375, 625, 750, 875, 1000)
    assert parts_of(tape) == [(t, t + 33, 100) for t in leave]
    assert tokens_of(run) == [[500], [1000, 1143]]
    gone = tape.of(StreamWithdrawn)
    assert [(e.time_ns, e.state.present) for e in gone] == [(500, 0)]  # type: ignore[attr-defined]
    log = run.streams
    assert log is not None
    assert (log.discarded_layer_tokens, log.moved, log.messages) == (300, 1, 7)
    assert [r.prefill_replica for r in run.records] == [-1, 0]


def test_what_is_on_a_link_arrives_before_its_blocks_are_free() -> None:
    """As above over the slow link: the message under way at 500 ends at 891."""
    links = replace(LINKS, node_bytes_per_s=1e8)
    tape = Tape()
    case = Scenario(requests((0, 100, 1)), limits(), replicas=2)
    disaggregated("orca", case, links=links, tape=tape, kv_transfer=LAYER_WISE)
    assert [e.time_ns for e in tape.of(StreamWithdrawn)] == [891]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@cases(5)
@given(
    kv_transfer=st.sampled_from([CHUNK_WISE, LAYER_WISE]),
    case=st.booleans().flatmap(lambda closed: scenarios(closed_loop=closed)),
    **PARAMETERS,
)
def test_random_runs_keep_every_law_and_fast_forward_is_the_same(
    name: str,
    kv_transfer: str,
    case: Scenario,
    queue: str,
    prefill: int,
    decode: int,
    frontend_ns: int,
    latency_ns: int,
) -> None:
    """Bytes sent are bytes received, links free, blocks at both ends, causality."""
    case = replace(case, queue=queue, replicas=prefill + decode)
    links = replace(LINKS, latency_ns=latency_ns)
    fast, slow, tape = fast_and_slow(
        partial(
            disaggregated,
            name,
            case,
            prefill,
            links=links,
            frontend_ns=frontend_ns,
            kv_transfer=kv_transfer,
        )
    )
    assert_same(fast, slow)
    assert fast.streams == slow.streams
    moved = [r for r in slow.records if r.prefill_replica >= 0]
    sent = sum(layer_tokens for _, _, layer_tokens in parts_of(tape))
    log = slow.streams
    assert log is not None
    whole = sum(r.request.prompt_tokens for r in moved) * case.at.num_layers
    assert sent == whole + log.discarded_layer_tokens
    assert log.messages == len(tape.of(PartSent))
    assert log.moved == len(moved) == len(tape.of(TransferEnded))
    ended = len(tape.of(StreamWithdrawn))
    assert len(tape.of(Offered)) == len(moved) + ended


@cases(12)
@given(
    prompt=st.integers(1, 500),
    layers=st.integers(1, 12),
    token_ns=st.integers(1, 50),
    latency_ns=st.integers(0, 400),
)
def test_alone_it_is_a_queue_of_layers(
    prompt: int, layers: int, token_ns: int, latency_ns: int
) -> None:
    """The link as a single server in which layers arrive, served all that wait at once.

    A slow twin of one request: layer k of L is there at ceil(k D / L), D the prefill.
    """
    links = KvLinks(
        latency_ns=latency_ns,
        gpu_bytes_per_token=1,
        gpus=1,
        node_bytes_per_s=1e9 / token_ns,
        network_bytes_per_s=1e9,
        replicas_per_node=2,
    )
    at = limits(num_layers=layers)
    case = Scenario(requests((0, prompt, 2)), at, replicas=2)
    run = disaggregated("orca", case, links=links, kv_transfer=LAYER_WISE)
    duration = 100 + layers * prompt
    there = [ceil(k * duration / layers) for k in range(1, layers + 1)]
    now = sent = 0
    while sent < layers:
        now = max(now, there[sent])
        ready = sum(t <= now for t in there)
        now += links.transfer_ns(0, 1, (ready - sent) * prompt / layers)
        sent = ready
    assert tokens_of(run) == [[duration, now + 110]]
    whole = disaggregated("orca", case, links=links)
    assert links.transfer_ns(0, 1, prompt) == tokens_of(whole)[0][1] - duration - 110
    if not latency_ns:  # an early start never hurts where messages cost nothing
        assert now <= duration + links.transfer_ns(0, 1, prompt) + layers


def test_growth_is_whole_parts_at_their_times() -> None:
    """3 parts in 10 ns: at ceil(10 / 3), ceil(20 / 3) and 10."""
    growth = Growth(100, 110, 3, 7)
    assert [growth.done(t) for t in (0, 103, 104, 106, 107, 109, 110, 200)] == [
        *(0, 0, 7, 7, 14, 14, 21, 21)
    ]
    assert [growth.next_ns(t) for t in (0, 104, 107, 110)] == [104, 107, 110, None]
    progress = KvProgress(total=50, found=5)
    assert (progress.done(0), progress.next_ns(0)) == (5, None)
    progress.grow(growth)
    assert progress.done(105) == 12
    progress.grow(Growth(110, 120, 1, 24))
    assert (progress.done(119), progress.done(120)) == (26, 50)


def test_time_waited_comes_first_and_mixed_spans_are_whole() -> None:
    """1000 ns, 200 of them waiting; spans that differ are there at the end."""
    chunk = PrefillChunk(3, 0, 10)
    one = StepPlan((LayerSpan(0, 4, (chunk,)),))
    cost = step_cost(1000, wait_ns=200)
    wise = growths(one, cost, 50, 4, layer_wise=True)
    assert wise == {3: Growth(250, 1050, 4, 10)}
    assert growths(one, cost, 50, 4, layer_wise=False) == {3: Growth(50, 1050, 1, 40)}
    two = StepPlan((LayerSpan(0, 1), LayerSpan(1, 4, (chunk,))))
    assert growths(two, cost, 50, 4, layer_wise=True) == {3: Growth(50, 1050, 1, 30)}
    all_wait = step_cost(7, wait_ns=7)
    assert growths(one, all_wait, 0, 4, layer_wise=True)[3].done(7) == 40


POOLS = ("parallel.replicas=2", "cluster.gpus_per_node=4", "workload.num_requests=12")


def test_what_it_may_be_is_said_in_one_line() -> None:
    with pytest.raises(ConfigError, match="layer-wise") as error:
        load_config(None, ("parallel.kv_transfer=layerwise",))
    assert "\n" not in str(error.value)


def test_results_say_what_was_exposed() -> None:
    """The option is in the configuration; figures of streams come with it only."""
    base = (*POOLS, "parallel.prefill_replicas=1", "engine.scheduler=chunked-prefill")
    got = {}
    for kind in (WHOLE, CHUNK_WISE, LAYER_WISE):
        config = load_config(None, (*base, f"parallel.kv_transfer={kind}"))
        got[kind] = run_config(config, check=True).summary
    assert "kv_transfer_messages" not in got[WHOLE]
    for kind in (CHUNK_WISE, LAYER_WISE):
        assert got[kind]["kv_transfer_bytes"] == got[WHOLE]["kv_transfer_bytes"]
        assert got[kind]["mean_ttft_ms"] == got[WHOLE]["mean_ttft_ms"]
        assert got[kind]["mean_e2el_ms"] < got[WHOLE]["mean_e2el_ms"]
    exposed = [
        got[kind]["mean_kv_transfer_exposed_ms"] for kind in (CHUNK_WISE, LAYER_WISE)
    ]
    assert exposed[1] < exposed[0]
