"""Materialised workloads: common random numbers, traces, closed loop, hashes."""

import hashlib
import math
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sim.errors import ConfigError
from sim.request import Request
from workloads.workload import DATASETS, Workload, WorkloadSpec, build_workload

ROOT = Path(__file__).parents[2]
TIMED = "arrived_at,num_prefill_tokens,num_decode_tokens\n1,10,2\n2,20,4\n3,30,6\n"
LENGTHS = "num_prefill_tokens,num_decode_tokens\n10,2\n20,4\n30,6\n"


def arxiv(**changes: Any) -> WorkloadSpec:
    base = WorkloadSpec(dataset="arxiv", request_rate=1.3, num_requests=50)
    return replace(base, **changes)


def lengths(workload: Workload) -> list[tuple[int, int]]:
    return [(r.prompt_tokens, r.output_tokens) for r in workload.requests]


def arrivals(workload: Workload) -> list[int]:
    return [r.arrival_ns for r in workload.requests]


@pytest.fixture
def timed(tmp_path: Path) -> str:
    (tmp_path / "timed.csv").write_text(TIMED)
    return str(tmp_path / "timed.csv")


@pytest.fixture
def untimed(tmp_path: Path) -> str:
    (tmp_path / "lengths.csv").write_text(LENGTHS)
    return str(tmp_path / "lengths.csv")


@pytest.mark.parametrize("dataset", sorted(DATASETS))
def test_every_dataset_gives_valid_requests_in_arrival_order(dataset: str) -> None:
    workload = build_workload(arxiv(dataset=dataset, random_range_ratio=0.9))
    assert workload.name == dataset
    assert [r.id for r in workload.requests] == list(range(50))
    assert arrivals(workload) == sorted(arrivals(workload))
    assert all(min(pair) >= 1 for pair in lengths(workload))


def test_lengths_do_not_depend_on_rate_burstiness_or_closed_loop() -> None:
    base = lengths(build_workload(arxiv()))
    for change in (
        {"request_rate": 9.0},
        {"request_rate": math.inf},
        {"burstiness": 0.2},
        {"max_concurrency": 4},
    ):
        assert lengths(build_workload(arxiv(**change))) == base


def test_a_longer_workload_starts_with_the_shorter_one() -> None:
    longer = build_workload(arxiv(num_requests=400))
    assert longer.requests[:50] == build_workload(arxiv()).requests


def test_arrivals_do_not_depend_on_the_dataset() -> None:
    times = arrivals(build_workload(arxiv()))
    assert arrivals(build_workload(arxiv(dataset="sharegpt"))) == times


def test_a_window_holds_the_requests_that_arrive_in_it() -> None:
    window = build_workload(arxiv(num_requests=None, duration_s=20.0))
    enough = build_workload(arxiv(num_requests=400)).requests
    expected = tuple(r for r in enough if r.arrival_ns < 20_000_000_000)
    assert window.requests == expected


def test_other_seeds_give_other_workloads() -> None:
    first, second = (build_workload(arxiv(seed=s)) for s in (0, 1))
    assert lengths(first) != lengths(second)
    assert arrivals(first) != arrivals(second)
    assert first.sha256 != second.sha256


def test_a_closed_loop_has_all_arrivals_at_zero() -> None:
    workload = build_workload(arxiv(max_concurrency=8))
    assert workload.max_concurrency == 8
    assert arrivals(workload) == [0] * 50


def test_hash_is_of_the_little_endian_integers() -> None:
    requests = tuple(
        Request(id=k, arrival_ns=a, prompt_tokens=p, output_tokens=o)
        for k, (a, p, o) in enumerate([(3, 10, 2), (2**40, 20, 4)])
    )
    packed = struct.pack("<7q", 0, 3, 10, 2, 2**40, 20, 4)
    workload = Workload(name="any", requests=requests)
    assert workload.sha256 == hashlib.sha256(packed).hexdigest()


def test_hash_tells_closed_loops_apart() -> None:
    specs = [arxiv(request_rate=math.inf), arxiv(max_concurrency=1)]
    specs.append(arxiv(max_concurrency=2))
    assert len({build_workload(spec).sha256 for spec in specs}) == 3


def test_same_seed_same_bytes_in_every_process() -> None:
    code = (
        "from workloads.workload import *\n"
        "for d in sorted(DATASETS):\n"
        "    s = WorkloadSpec(dataset=d, request_rate=2.0, burstiness=0.7,"
        " num_requests=300, random_range_ratio=0.3)\n"
        "    print(build_workload(s).sha256)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1", "random")
    }
    here = [
        build_workload(
            WorkloadSpec(
                dataset=dataset,
                request_rate=2.0,
                burstiness=0.7,
                num_requests=300,
                random_range_ratio=0.3,
            )
        ).sha256
        for dataset in sorted(DATASETS)
    ]
    assert outputs == {"\n".join(here) + "\n"}


def test_a_timed_trace_is_replayed_as_it_is(timed: str) -> None:
    workload = build_workload(WorkloadSpec(path=timed, request_rate=99.0))
    assert workload.name == "timed.csv"
    assert arrivals(workload) == [1_000_000_000, 2_000_000_000, 3_000_000_000]
    assert lengths(workload) == [(10, 2), (20, 4), (30, 6)]


@pytest.mark.parametrize(
    ("limits", "rows"),
    [
        ({"num_requests": 2}, 2),
        ({"duration_s": 3.0}, 2),
        ({"duration_s": 3.1}, 3),
        ({"num_requests": 1, "duration_s": 3.0}, 1),
        ({"num_requests": 3, "duration_s": 1.5}, 1),
    ],
)
def test_a_replay_stops_at_the_first_limit(
    timed: str, limits: dict[str, Any], rows: int
) -> None:
    workload = build_workload(WorkloadSpec(path=timed, **limits))
    assert lengths(workload) == [(10, 2), (20, 4), (30, 6)][:rows]


def test_a_timed_trace_in_a_closed_loop_keeps_only_its_lengths(timed: str) -> None:
    workload = build_workload(WorkloadSpec(path=timed, max_concurrency=2))
    assert arrivals(workload) == [0, 0, 0]
    assert lengths(workload) == [(10, 2), (20, 4), (30, 6)]


def test_a_lengths_only_trace_takes_the_arrival_process(untimed: str) -> None:
    workload = build_workload(WorkloadSpec(path=untimed, request_rate=1.3))
    assert lengths(workload) == [(10, 2), (20, 4), (30, 6)]
    assert arrivals(workload) == arrivals(build_workload(arxiv(num_requests=3)))


@pytest.mark.parametrize("limits", [{"num_requests": 4}, {"duration_s": 1000.0}])
def test_more_requests_than_rows_are_refused(
    untimed: str, limits: dict[str, Any]
) -> None:
    spec = WorkloadSpec(path=untimed, request_rate=1.0, **limits)
    with pytest.raises(ConfigError, match=r"lengths.csv; allowed: at most its 3 rows"):
        build_workload(spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_requests": None}, "num_requests: None"),
        ({"max_concurrency": 2, "num_requests": None}, "max_concurrency: 2 with"),
        ({"max_concurrency": 2, "duration_s": 5.0}, "bounded by num_requests alone"),
        ({"duration_s": 1e-9}, "duration_s: 1e-09 ends before the first arrival"),
        ({"dataset": "nope"}, "dataset: 'nope'; allowed: arxiv"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_workload(arxiv(**changes))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("request_rate", [0, -1.0, math.nan, -math.inf, 1e-4]),
        ("burstiness", [0, -1.0, math.nan, 1e-9]),
        ("max_concurrency", [0, -1]),
        ("num_requests", [0, -1, 10_000_001]),
        ("duration_s", [0, -1.0, math.nan, math.inf]),
        ("random_input_len", [0, 10_000_001]),
        ("random_output_len", [0, 10_000_001]),
        ("random_range_ratio", [-0.1, 1.0, math.nan]),
        ("seed", [-1, 2**63]),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key(
    key: str, values: list[Any]
) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=rf"workload.{key}: .*; allowed: "):
            replace(WorkloadSpec(), **{key: value})


def request(k: int, arrival_ns: int) -> Request:
    return Request(id=k, arrival_ns=arrival_ns, prompt_tokens=1, output_tokens=1)


@pytest.mark.parametrize(
    ("requests", "concurrency"),
    [
        ((), None),
        ((request(0, 5), request(1, 4)), None),
        ((request(0, -1),), None),
        ((request(1, 0),), None),
        ((request(0, 0), request(1, 7)), 2),
    ],
    ids=["empty", "unsorted", "negative", "wrong id", "closed loop with a time"],
)
def test_a_workload_that_breaks_its_promises_is_refused(
    requests: tuple[Request, ...], concurrency: int | None
) -> None:
    with pytest.raises(ConfigError, match=r"workload bad: .*; allowed: "):
        Workload(name="bad", requests=requests, max_concurrency=concurrency)


def test_the_offered_rate_is_that_of_the_users(timed: str, untimed: str) -> None:
    """Asked for, infinite where clients wait, none where a trace says when."""
    assert build_workload(arxiv(request_rate=1.5)).offered_rate == 1.5
    closed = {"max_concurrency": 2, "num_requests": 3}
    assert build_workload(arxiv(**closed)).offered_rate == math.inf
    for path, rate in ((untimed, 2.0), (timed, None)):
        spec = WorkloadSpec(path=path, request_rate=2.0, num_requests=3)
        assert build_workload(spec).offered_rate == rate
        assert build_workload(replace(spec, **closed)).offered_rate == math.inf
