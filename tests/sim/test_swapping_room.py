"""When a swapped request comes back, by hand, and what engine and queue count then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.queues.vtc import VirtualTokenCounter
from sim.request import RequestRecord
from sim.routers import ROUTERS
from sim.shell.cluster import Cluster
from sim.swapping import SwappingEngine, watermark_blocks
from sim.view import PrefillState, QueuedRequest
from tests.sim.pricing import Scenario, limits, requests, scheduler_of, serve
from tests.sim.swapping import PAIR, engines_of, iterate, swapped
from tests.sim.test_fast_forward import ManyPricer


@pytest.mark.parametrize(
    ("blocks", "left"), [(99, 0), (100, 1), (399, 3), (400, 4), (25_000, 250)]
)
def test_the_watermark_is_one_percent_rounded_down(blocks: int, left: int) -> None:
    """``int(0.01 * num_gpu_blocks)`` of vLLM V0's block manager."""
    assert watermark_blocks(blocks) == left


def engine(free_blocks: int) -> SwappingEngine:
    """Nobody there; blocks of 2 tokens, two sequences, a watermark of 4 blocks."""
    at = limits(block_size=2, max_num_seqs=2)
    made = SwappingEngine(scheduler_of("orca", PAIR), at, 400, 9)
    made.free_blocks = free_blocks
    return made


@pytest.mark.parametrize(("stored", "fits"), [(4, True), (5, True), (6, False)])
def test_alone_it_takes_room_for_one_more_token(stored: int, fits: bool) -> None:
    """Of 3 free blocks: 5, 6 and 7 tokens take 3, 3 and 4."""
    assert engine(3)._fits(stored) is fits


@pytest.mark.parametrize(("free", "fits"), [(8, True), (7, False)])
def test_beside_others_it_leaves_the_watermark(free: int, fits: bool) -> None:
    """6 tokens take 3 blocks, and one more: 4 of 8 are left, of 7 only 3."""
    made = engine(free)
    made.decoding.join(9, 3, 5)  # its next token needs no block
    assert made._fits(6) is fits


def test_what_others_need_next_is_not_free() -> None:
    """One that stores 4 tokens takes a fifth block: of 9 blocks 4 are left, as of 8."""
    made = engine(8)
    made.decoding.join(9, 4, 5)
    assert not made._fits(6)
    made.free_blocks = 9
    assert made._fits(6)


def test_slots_of_prompts_in_progress_count() -> None:
    """One decodes and one prefills: both sequences are taken, whatever the room."""
    made = engine(400)
    made.decoding.join(9, 3, 5)
    assert made._fits(6)
    made.prefilling[8] = PrefillState(8, 10)
    assert not made._fits(6)
    del made.prefilling[8]
    made.decoding.join(8, 3, 5)
    assert not made._fits(6)


def test_an_engine_with_nothing_to_do_has_no_plan() -> None:
    assert engine(3).plan() is None


def test_who_goes_waits_in_front_under_its_own_name() -> None:
    """The second of :data:`PAIR`, of client 4, has stored a prompt of 2 tokens."""
    (made,) = engines_of("orca", PAIR, 10)
    for request, client in zip(PAIR.requests, (3, 4), strict=True):
        own = replace(request, client=client)
        made.submit(RequestRecord(request=own, arrival_ns=0, runs=[]))
    iterate(made, 0, 116)
    assert list(made.waiting) == [QueuedRequest(1, 3, True, 4, True)]


def test_a_fair_queue_charges_every_token_once() -> None:
    """Nothing is computed twice: a prompt's 2 tokens and twice 4 of output each.

    As many with preemptions as without; the engine counts those as records do.
    """
    work = tuple(replace(r, client=r.id) for r in requests(*[(0, 2, 4)] * 3))
    case = replace(PAIR, requests=work)
    queue = VirtualTokenCounter()
    made = SwappingEngine(scheduler_of("orca", case), case.at, 3, 10, queue)
    router = ROUTERS["round-robin"]()
    run = Cluster([made], ManyPricer(), router).run(work)
    swaps = sum(r.preemptions for r in run.records)
    assert made.preemptions == swaps == sum(made.swaps.requests_out) > 1
    assert queue.served == dict.fromkeys(range(3), 2 + 2 * 4)


def test_engines_count_preemptions_as_records_do() -> None:
    """More than one, recomputed or partly swapped."""
    case: Scenario = replace(PAIR, requests=requests(*[(0, 2, 4)] * 4))
    plain = serve("orca", case)
    run, (made,) = swapped("orca", case, host_blocks=1)
    for records, counted in (
        (plain.run.records, plain.engines[0].preemptions),
        (run.records, made.preemptions),
    ):
        assert counted == sum(r.preemptions for r in records) > 1
