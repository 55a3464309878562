"""Queue disciplines: by hand, against theory, and under every scheduler."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.queues import QUEUES
from sim.queues.fcfs import FirstComeFirstServed
from sim.queues.sjf import ShortestJobFirst
from sim.queues.vtc import INPUT_WEIGHT, OUTPUT_WEIGHT, VirtualTokenCounter
from sim.request import Request
from sim.schedulers import SCHEDULERS
from sim.view import QueuedRequest
from tests.sim.pricing import (
    QUICK,
    LinearPricer,
    Scenario,
    limits,
    one_by_one,
    requests,
    scenarios,
    serve,
)
from tests.sim.tape import fast_and_slow
from tests.sim.test_fast_forward import assert_same, run

every_scheduler = pytest.mark.parametrize("name", sorted(SCHEDULERS))
every_queue = pytest.mark.parametrize("queue", sorted(QUEUES))


def sent(*rows: tuple[int, int, int, int]) -> tuple[Request, ...]:
    """Requests of (arrival ns, prompt tokens, output tokens, client)."""
    return tuple(
        replace(request, client=row[3])
        for request, row in zip(requests(*[row[:3] for row in rows]), rows, strict=True)
    )


def test_who_was_prefilled_elsewhere_is_charged_for_what_is_decoded_here() -> None:
    """A decode replica's queue never saw client 3; 5 tokens are twice as much."""
    queue = VirtualTokenCounter()
    queue.decoded(3, 5)
    queue.decoded(3, 1)
    assert queue.served == {3: 12}


@every_queue
@given(
    moves=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2)), max_size=12),
    taken=st.integers(0, 6),
    back=st.booleans(),
)
@QUICK
def test_what_is_shown_is_what_is_taken(
    queue: str, moves: list[tuple[int, int]], taken: int, back: bool
) -> None:
    """The order seen is that of taking one after the other, preempted ones first."""
    waiting = QUEUES[queue]()
    for k, (tokens, client) in enumerate(moves):
        waiting.push(QueuedRequest(k, tokens, client=client))
    for _ in range(min(taken, len(moves))):
        waiting.pop_front()
    if back:
        waiting.push_front(QueuedRequest(99, 5, resumed=True))
    shown = list(waiting)
    assert len(waiting) == len(shown) == max(len(moves) - taken, 0) + back
    assert [waiting.pop_front() for _ in shown] == shown
    assert not waiting
    assert not back or shown[0].id == 99


def test_shortest_prompt_first_by_hand() -> None:
    """One at a time: 0 runs when 1, 2 and 3 come; then 3, 1 (before 2, as long), 2."""
    work = requests((0, 50, 1), (1, 30, 1), (2, 30, 1), (3, 10, 1))
    at = limits(max_num_seqs=1)
    served = serve("chunked-prefill", Scenario(work, at, queue="sjf"))
    starts = [record.first_scheduled_ns for record in served.run.records]
    assert starts == [0, 440, 660, 300]  # 100 + 4 x 50, then 140, 220 and 220 each


@given(lengths=st.lists(st.integers(1, 30), min_size=2, max_size=5))
@QUICK
def test_no_order_has_a_lower_mean_wait_than_the_shortest_first(
    lengths: list[int],
) -> None:
    """Smith's rule, against every permutation on one server."""
    rows = [(0, tokens, 1) for tokens in lengths]
    at = limits(max_num_seqs=1)
    sums = [
        sum(r.first_scheduled_ns or 0 for r in serve("orca", case).run.records)
        for order in permutations(rows)
        for case in [Scenario(requests(*order), at)]
    ]
    shortest = serve("orca", Scenario(requests(*rows), at, queue="sjf"))
    assert sum(r.first_scheduled_ns or 0 for r in shortest.run.records) == min(sums)


def test_virtual_token_counters_by_hand() -> None:
    """Client 0 floods, client 1 sends two: they take turns by service, not by arrival.

    One slot. 0: 10 + 2 x 1 = 12 after request 0. Client 1 enters an idle queue's
    company: lifted to 12, the only counter in it; 0 goes first on ties.
    """
    work = sent(
        (0, 10, 1, 0), (1, 10, 1, 0), (2, 10, 1, 0), (3, 10, 1, 1), (4, 4, 1, 1)
    )
    at = limits(max_num_seqs=1)
    served = serve("orca", Scenario(work, at, queue="vtc"))
    order = sorted(served.run.records, key=lambda r: r.first_scheduled_ns or 0)
    # Lifted at 3 ns, while 0's first is charged 10 and not yet its token: 1 has 10, 0
    # has 12 at 140; then 1 has 22, 0 goes (24), 1 goes (28), 0 goes.
    assert [r.request.id for r in order] == [0, 3, 1, 4, 2]


def test_idle_clients_earn_no_credit() -> None:
    """A client that comes back is lifted to the least counter of those who wait."""
    queue = VirtualTokenCounter()
    queue.push(QueuedRequest(0, 100, client=0))
    queue.push(QueuedRequest(1, 100, client=0))
    queue.pop_front()
    queue.push(QueuedRequest(2, 7, client=1))
    assert queue.served == {0: 100, 1: 100}
    for _ in range(2):
        queue.pop_front()
    assert queue.served == {0: 200, 1: 107}
    queue.push(QueuedRequest(3, 1, client=2))  # into an empty queue: 1 left it last
    assert queue.served[2] == 107


@every_scheduler
@given(
    prompts=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 12)), min_size=20),
    seqs=st.integers(1, 4),
)
@QUICK
def test_clients_that_always_wait_get_equal_service(
    name: str, prompts: list[tuple[int, int]], seqs: int
) -> None:
    """Theorem 4.4: counters of two waiting clients differ by max(w_p L, w_q M) at most.

    M is what the batch can hold: here a slot never stores more than 32 tokens.
    """
    rows = [(0, p, o, k % 2) for k, (p, o) in enumerate(prompts)]
    at = limits(max_num_seqs=seqs, max_num_batched_tokens=64, max_model_len=33)
    spread: list[int] = []

    class Watched(VirtualTokenCounter):
        def pop_front(self) -> QueuedRequest:
            if len(self._waiting) == 2:
                spread.append(abs(self.served[0] - self.served[1]))
            return super().pop_front()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.sim.pricing.QUEUES", {**QUEUES, "vtc": Watched})
        serve(name, Scenario(sent(*rows), at, queue="vtc"))
    assert spread
    assert max(spread) <= max(INPUT_WEIGHT * 20, OUTPUT_WEIGHT * seqs * 33)


@every_scheduler
@QUICK
@given(scenario=scenarios())
def test_service_is_conserved(name: str, scenario: Scenario) -> None:
    """Counters that are never lifted add up to all tokens (one client), by weight."""
    work = tuple(replace(r, client=4) for r in scenario.requests)
    served = serve(name, replace(scenario, requests=work, queue="vtc"))
    queue = served.engines[0].waiting
    assert isinstance(queue, VirtualTokenCounter)
    done = [r for r in served.run.records if r.rejected is None]
    owed = sum(r.request.prompt_tokens + 2 * r.output_tokens for r in done)
    assert sum(queue.served.values()) == owed


@every_scheduler
@pytest.mark.parametrize("queue", ["sjf", "vtc"])
@QUICK
@given(scenario=scenarios(max_replicas=2, closed_loop=True), data=st.data())
def test_everybody_is_served_and_fast_forward_is_the_same(
    name: str, queue: str, scenario: Scenario, data: st.DataObject
) -> None:
    work = tuple(
        replace(r, client=data.draw(st.integers(0, 2))) for r in scenario.requests
    )
    case = replace(scenario, requests=work, queue=queue)
    fast, slow, _ = fast_and_slow(partial(run, name, case, 0))
    assert_same(fast, slow)
    for record in fast.records:
        assert (record.finish_ns is None) == (record.rejected is not None)


@every_scheduler
@QUICK
@given(scenario=scenarios())
def test_among_equals_every_discipline_is_first_come_first_served(
    name: str, scenario: Scenario
) -> None:
    """Equal prompts of one client: nothing to choose by but arrival."""
    work = tuple(replace(r, prompt_tokens=2) for r in scenario.requests)
    outcomes = [
        serve(name, replace(scenario, requests=work, queue=queue)).tokens
        for queue in QUEUES
    ]
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_only_vtc_moves_while_it_decodes() -> None:
    assert FirstComeFirstServed.fixed_order
    assert ShortestJobFirst.fixed_order
    assert not VirtualTokenCounter.fixed_order


def test_tokens_of_a_run_are_charged_when_somebody_comes() -> None:
    """A client that comes back while another decodes is lifted to what that one got.

    One at a time, 2 ns a token and more. Request 0 of client 0 decodes when requests 2
    of client 1 and 1 of client 0 come: what it was served counts until then.
    """
    work = sent((0, 1, 3, 0), (5, 1, 1, 0), (5, 1, 2, 1), (5, 1, 1, 0), (5, 1, 1, 1))
    one = one_by_one(4)
    case = Scenario(
        work,
        one,
        num_blocks=4,
        max_concurrency=3,
        queue="vtc",
        pricer=LinearPricer(base_ns=1, row_ns=0, context_ns=1, token_layer_ns=0),
    )
    fast, slow, _ = fast_and_slow(partial(run, "chunked-prefill", case, 0))
    assert_same(fast, slow)
