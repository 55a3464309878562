"""Sessions as they are drawn: who says what, and the laws of turns and think times."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.config_file import load_config
from sim.errors import ConfigError
from sim.request import Request
from tests.cases import cases
from workloads.spec import WorkloadSpec
from workloads.workload import build_workload


def drawn(**options: object) -> list[Request]:
    spec = {
        "dataset": "sharegpt",
        "request_rate": 2.0,
        "num_requests": 60,
        "session_turns_mean": 4.0,
        "context_tokens": 4096,
        **options,
    }
    return list(build_workload(WorkloadSpec(**spec)).requests)  # type: ignore[arg-type]


def sessions_of(requests: list[Request]) -> list[list[Request]]:
    sessions: list[list[Request]] = []
    for request in requests:
        if request.think_ns is None:
            sessions.append([])
        sessions[-1].append(request)
    return sessions


@given(
    seed=st.integers(0, 2**32),
    mean=st.floats(1.01, 20),
    context=st.none() | st.integers(2, 20_000),
    count=st.integers(1, 80),
)
@cases(15)
def test_a_turn_begins_with_all_that_was_said(
    seed: int, mean: float, context: int | None, count: int
) -> None:
    requests = drawn(
        seed=seed, session_turns_mean=mean, context_tokens=context, num_requests=count
    )
    assert [request.id for request in requests] == list(range(len(requests)))
    assert len(requests) == count
    seen: set[int] = set()
    for turns in sessions_of(requests):
        for before, turn in pairwise(turns):
            said = before.prompt_tokens + before.output_tokens
            assert turn.prompt_tokens > said
            assert turn.prefix.segments[:-2] == before.prefix.segments
            assert turn.prefix.ends[:-2] == before.prefix.ends
            assert turn.arrival_ns == before.arrival_ns
            if context is not None:
                assert turn.prompt_tokens + turn.output_tokens <= context
        for turn in turns:
            whole = turn.prompt_tokens + turn.output_tokens
            assert turn.prefix.ends[-2:] == (turn.prompt_tokens, whole)
        assert not seen.intersection(turns[-1].prefix.segments)
        seen.update(turns[-1].prefix.segments)


def test_rate_and_number_change_no_session() -> None:
    def said(requests: list[Request]) -> list[tuple[int, int, int | None]]:
        return [(r.prompt_tokens, r.output_tokens, r.think_ns) for r in requests]

    many = said(drawn(num_requests=200))
    few = said(drawn(num_requests=50, request_rate=9.0))
    assert len(many) == 200
    assert few == many[:50]


def test_one_turn_each_is_no_session() -> None:
    plain = drawn(session_turns_mean=1.0)
    assert all(r.think_ns is None and not r.prefix.segments for r in plain)


def test_the_laws_are_geometric_and_exponential() -> None:
    """Within four standard errors of 40,000 turns: means, chances, memorylessness."""
    requests = drawn(
        dataset="random",
        random_input_len=1,
        random_output_len=1,
        num_requests=40_000,
        context_tokens=None,
        session_turn_delay_mean_s=3.0,
    )
    turns = np.array([len(each) for each in sessions_of(requests)[:-1]])
    assert turns.mean() == pytest.approx(4, abs=4 * math.sqrt(12 / turns.size))
    for past in (1, 4):
        went_on = (turns > past)[turns >= past]
        error = 4 * math.sqrt(0.75 * 0.25 / went_on.size)
        assert went_on.mean() == pytest.approx(0.75, abs=error)
    thinks = np.array([r.think_ns for r in requests if r.think_ns is not None]) / 3e9
    error = 4 / math.sqrt(thinks.size)
    assert thinks.mean() == pytest.approx(1, abs=error)
    assert (thinks > 1).mean() == pytest.approx(math.exp(-1), abs=error)


def test_the_hash_knows_of_think_times() -> None:
    hashes = {
        build_workload(
            WorkloadSpec(
                dataset="sharegpt",
                num_requests=20,
                session_turns_mean=3.0,
                session_turn_delay_mean_s=delay,
            )
        ).sha256
        for delay in (1.0, 2.0)
    }
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"session_turns_mean": 0.5}, "session_turns_mean: 0.5; allowed: 1..1000"),
        ({"session_turn_delay_mean_s": -1}, "session_turn_delay_mean_s: -1; allowed"),
        ({"num_requests": None, "duration_s": 1e-9}, "ends before the first arrival"),
        (
            {
                "num_requests": None,
                "duration_s": 100.0,
                "request_rate": 1000.0,
                "session_turns_mean": 1000.0,
            },
            "sessions; allowed: at most 10000000 requests in all",
        ),
    ],
)
def test_what_cannot_be_drawn(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        drawn(**options)


def test_a_trace_has_its_own_requests() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(
            None, ("workload.session_turns_mean=2.0", "workload.path=trace.csv")
        )
    assert str(caught.value) == (
        "--set: workload.session_turns_mean = 2.0: must be 1 with workload.path:"
        " a trace has its own requests"
    )
