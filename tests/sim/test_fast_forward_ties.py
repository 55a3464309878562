"""Ends inside runs of decodes, and what else happens at their nanosecond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

from sim.events import IterationsEnded, Queued, RunEnded
from sim.request import Request
from tests.sim.pricing import LinearPricer, Scenario, limits, one_by_one, requests
from tests.sim.tape import Tape, fast_and_slow
from tests.sim.test_fast_forward import assert_same, run

TICK = LinearPricer(base_ns=1, row_ns=0, context_ns=0, token_layer_ns=0)
ONE_BY_ONE = one_by_one(8)


def ticking(work: Sequence[Request], max_concurrency: int | None) -> Scenario:
    """Two replicas in turn, one request and one token at a time, 1 ns each."""
    return Scenario(
        tuple(work),
        ONE_BY_ONE,
        num_blocks=8,
        replicas=2,
        router="round-robin",
        max_concurrency=max_concurrency,
        pricer=TICK,
    )


def ends_and_arrivals(tape: Tape, time_ns: int) -> list[tuple[str, int]]:
    """What happens at a time, and on which replica."""
    kinds = (IterationsEnded, Queued)
    told = [e for e in tape.of(*kinds) if e.time_ns == time_ns]  # type: ignore[union-attr]
    return [(type(e).__name__, e.replica) for e in told]  # type: ignore[union-attr]


@pytest.mark.parametrize("tokens", [3, 6])
@pytest.mark.parametrize("turn", [False, True])
def test_an_end_inside_a_run_comes_before_that_of_a_later_replica(
    tokens: int, turn: bool
) -> None:
    """The end on replica 1 at 2 has request 2 come to replica 0, held or a next turn.

    Replica 0 is then between two of the tokens of request 0, the second to last or
    earlier ones: its iteration of that nanosecond ends first.
    """
    first, second, third = requests((0, 1, tokens), (0, 1, 2), (0, 1, 1))
    work = [first, second, replace(third, think_ns=0) if turn else third]
    case = ticking(work, None if turn else 2)
    fast, slow, tape = fast_and_slow(partial(run, "chunked-prefill", case, 0))
    assert_same(fast, slow)
    ended, queued = "IterationsEnded", "Queued"
    assert ends_and_arrivals(tape, 2) == [(ended, 0), (ended, 1), (queued, 0)]


def test_an_end_inside_a_run_of_a_later_replica_comes_after() -> None:
    """The end on replica 0 at 2 sends request 3 to replica 1, whose own is to come."""
    work = requests((0, 1, 2), (0, 1, 6), (0, 1, 1), (0, 1, 1))
    case = ticking(work, 3)
    fast, slow, tape = fast_and_slow(partial(run, "chunked-prefill", case, 0))
    assert_same(fast, slow)
    ended, queued = "IterationsEnded", "Queued"
    assert ends_and_arrivals(tape, 2) == [(ended, 0), (queued, 1), (ended, 1)]


def test_who_comes_in_the_middle_of_a_run_finds_its_iterations_ended() -> None:
    """One request decodes, 110 ns each; blocks of one token; another comes at 1150."""
    case = Scenario(
        requests((0, 4, 20), (1150, 4, 2)), limits(num_layers=1, block_size=1)
    )
    fast, slow, tape = fast_and_slow(partial(run, "chunked-prefill", case, 0))
    assert_same(fast, slow)
    ended = sum(e.time_ns < 1150 for e in tape.of(IterationsEnded))  # type: ignore[attr-defined]
    (_, second) = tape.of(Queued)
    # the prompt's four, one a decode iteration that has ended, one of that under way
    assert second.state.used_blocks == 4 + (ended - 1) + 1  # type: ignore[union-attr]


def test_a_run_ends_with_its_last_event() -> None:
    """Not when iterations would have ended that an arrival called off.

    One takes 1 ns + 1 per KV token of the decode batch. Request 0 would decode until
    13; request 1 ends its run of decodes at 4, then takes its blocks, and at 12 all is
    done: computing 0 again takes less time than its decodes would have.
    """
    at = limits(
        num_layers=1,
        max_num_batched_tokens=5,
        max_num_seqs=2,
        max_model_len=22,
        block_size=1,
    )
    case = Scenario(
        requests((0, 1, 4), (2, 19, 1)),
        at,
        num_blocks=22,
        pricer=LinearPricer(base_ns=1, row_ns=0, context_ns=1, token_layer_ns=0),
    )
    fast, slow, tape = fast_and_slow(partial(run, "chunked-prefill", case, 0))
    assert_same(fast, slow)
    assert [end.time_ns for end in tape.of(RunEnded)] == [12]  # type: ignore[attr-defined]


def test_a_run_of_nothing_ends_as_it_begins() -> None:
    tape = Tape()
    run("orca", Scenario((), limits()), 0, fast=True, tape=tape)
    assert [end.time_ns for end in tape.of(RunEnded)] == [0]  # type: ignore[attr-defined]
