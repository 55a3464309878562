"""The trace against the Trace Event Format, and against the run it is of."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reports.trace import REQUESTS_PID, TracedRun, trace_document
from sim.config_file import load_config
from sim.results import RunResult, write_run
from sim.runner import prepare, run_prepared
from tests.sim.test_results import BUSY

Event = dict[str, Any]


@pytest.fixture(scope="module", params=["layered-prefill", "chunked-prefill"])
def result(request: pytest.FixtureRequest) -> RunResult:
    """Two replicas with preemptions and rejections."""
    config = load_config(None, [*BUSY, f"engine.scheduler={request.param}"])
    return run_prepared(prepare(config), trace=True)


@pytest.fixture(scope="module")
def events(result: RunResult, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """Events as read back from the file."""
    folder = tmp_path_factory.mktemp("trace")
    write_run(folder, result)
    with gzip.open(folder / "trace.json.gz", "rt") as file:
        document = json.load(file)
    assert set(document) == {"displayTimeUnit", "otherData", "traceEvents"}
    assert document["displayTimeUnit"] in {"ms", "ns"}
    assert document["otherData"]["iterations_left_out"] == 0
    found: list[Event] = document["traceEvents"]
    return found


def _ns(microseconds: float) -> int:
    nanoseconds = round(microseconds * 1e3)
    assert microseconds == nanoseconds / 1e3  # exact to the nanosecond
    return nanoseconds


def test_every_event_has_what_its_phase_demands(events: list[Event]) -> None:
    """Trace Event Format: required fields by phase, and their types."""
    required = {
        "X": {"name", "cat", "pid", "tid", "ts", "dur", "args"},
        "b": {"name", "cat", "id", "pid", "tid", "ts"},
        "e": {"name", "cat", "id", "pid", "tid", "ts"},
        "C": {"name", "pid", "ts", "args"},
        "M": {"name", "pid", "tid", "args"},
    }
    assert {event["ph"] for event in events} == set(required)
    for event in events:
        extra = {"args"} if event["ph"] == "b" else set()
        assert required[event["ph"]] <= set(event) - {"ph"}
        assert set(event) - {"ph"} <= required[event["ph"]] | extra
        assert isinstance(event["name"], str)
        assert type(event["pid"]) is int
        if "ts" in event:
            assert _ns(event["ts"]) >= 0
        if event["ph"] == "C":
            assert all(type(v) in {int, float} for v in event["args"].values())
        if event["ph"] == "M":
            assert event["name"] in {"process_name", "thread_name"}
            assert isinstance(event["args"]["name"], str)


def test_every_process_and_thread_has_a_name(events: list[Event]) -> None:
    named = {(e["name"], e["pid"], e["tid"]) for e in events if e["ph"] == "M"}
    for event in events:
        assert ("process_name", event["pid"], 0) in named
        if event["ph"] == "X":
            assert ("thread_name", event["pid"], event["tid"]) in named


def test_slices_of_a_thread_nest(events: list[Event]) -> None:
    """Two slices are apart or one lies in the other; a parent comes first."""
    threads: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            threads[event["pid"], event["tid"]].append(event)
    assert len(threads) == 2 * 3  # replicas times iterations and two ranks
    for slices in threads.values():
        open_ends: list[int] = []
        last_ns = 0
        for event in slices:
            start_ns = _ns(event["ts"])
            end_ns = start_ns + _ns(event["dur"])
            assert start_ns >= last_ns
            last_ns = start_ns
            while open_ends and open_ends[-1] <= start_ns:
                open_ends.pop()
            assert not open_ends or end_ns <= open_ends[-1]
            open_ends.append(end_ns)


def test_asynchronous_events_close_in_order(events: list[Event]) -> None:
    stacks: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        if event["ph"] == "b":
            stacks[event["id"]].append(event)
        elif event["ph"] == "e":
            begun = stacks[event["id"]].pop()
            assert begun["name"] == event["name"]
            assert begun["ts"] <= event["ts"]
    assert not any(stacks.values())


def test_request_spans_are_their_latencies(
    events: list[Event], result: RunResult
) -> None:
    spans = {
        (event["ph"], event["id"]): _ns(event["ts"])
        for event in events
        if event["pid"] == REQUESTS_PID and event.get("name", "").startswith("request ")
    }
    served = result.requests[result.requests["rejected"] == ""]
    assert 0 < len(served) < len(result.requests)
    assert len(spans) == 2 * len(served)
    for row in served.itertuples():
        assert spans["b", row.id] == row.arrival_ns
        assert spans["e", row.id] == row.finish_ns


def test_iterations_and_ranks_cover_the_busy_time(
    events: list[Event], result: RunResult
) -> None:
    """Kernels and waits of every rank add up to the iterations, to the nanosecond."""
    busy_ns = (result.iterations["end_ns"] - result.iterations["start_ns"]).groupby(
        result.iterations["replica"]
    )
    leaves: dict[tuple[int, int], int] = defaultdict(int)
    for event in events:
        if event["ph"] == "X" and not event["name"].startswith("layers "):
            leaves[event["pid"], event["tid"]] += _ns(event["dur"])
    for replica, total_ns in busy_ns.sum().items():
        for tid in range(3):
            assert leaves[2 + replica, tid] == total_ns


def test_counters_follow_the_iterations(events: list[Event], result: RunResult) -> None:
    running = [
        (e["pid"], _ns(e["ts"]), e["args"]["running"])
        for e in events
        if e["ph"] == "C" and e["name"] == "requests"
    ]
    for row in result.iterations.itertuples():
        assert (2 + row.replica, row.start_ns, row.running) in set(running)
        break
    last = result.iterations.groupby("replica")["end_ns"].last()
    for replica, end_ns in last.items():
        assert (2 + replica, end_ns, 0) in running
    shares = [
        e["args"]["share"]
        for e in events
        if e["ph"] == "C" and e["name"] == "kv_cache_usage_perc"
    ]
    assert 0 <= min(shares) <= max(shares) <= 1
    assert max(shares) > 0.5


def test_power_integrates_to_the_energy(events: list[Event], result: RunResult) -> None:
    """The counter is a step function; its integral is that of the run's power."""
    points: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "C" and event["name"] == "power_w":
            points[event["pid"]].append((_ns(event["ts"]), event["args"]["power_w"]))
    end_ns = int(result.iterations["end_ns"].max())
    energy_j = 0.0
    idle_j_before = 0.0
    idle_w = min(power for series in points.values() for _, power in series)
    for series in points.values():
        ordered = [*sorted(series), (end_ns, 0.0)]
        for (start, power_w), (stop, _) in pairwise(ordered):
            energy_j += power_w * (stop - start) * 1e-9
        idle_j_before += idle_w * ordered[0][0] * 1e-9
    expected = pytest.approx(result.summary["energy_j"], rel=1e-6)
    assert energy_j + idle_j_before == expected


def test_a_trace_is_cut_at_whole_iterations(result: RunResult) -> None:
    """Requests take at most half; what is left out is counted, nothing is torn."""
    run = TracedRun(
        title="cut",
        ranks=2,
        num_blocks=1,
        idle_w=0.0,
        steps=result.steps,
        iterations=result.iterations,
        requests=result.requests,
    )
    whole, cut = trace_document(run), trace_document(run, 1000)
    events = cut["traceEvents"]
    assert 900 < len(events) <= 1000 < len(whole["traceEvents"])
    kept = sum(e["ph"] == "X" and e["tid"] == 0 for e in events)
    total = result.steps.groupby(["replica", "iteration"]).ngroups
    assert cut["otherData"]["iterations_left_out"] == total - kept > 0
    assert whole["traceEvents"][: len(events)] == events
    few = trace_document(run, 100)
    served = int((result.requests["rejected"] == "").sum())
    spans = sum(e["ph"] == "b" and "request" in e["name"] for e in few["traceEvents"])
    assert few["otherData"]["requests_left_out"] == served - spans > 0


def test_no_trace_unless_asked(tmp_path: Path) -> None:
    config = load_config(None, ["workload.num_requests=2"])
    plain = run_prepared(prepare(config))
    assert plain.trace is None
    (tmp_path / "trace.json.gz").write_text("old")
    write_run(tmp_path, plain)
    assert not (tmp_path / "trace.json.gz").exists()
