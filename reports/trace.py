"""A run as a trace for Perfetto or chrome://tracing, from its tables.

Trace Event Format (Google, "Trace Event Format", JSON object form): complete events
(X) for iterations, layer spans and kernels, nestable asynchronous events (b, e) for
requests, counters (C) and names (M). Times are microseconds, exact to the nanosecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from sim.step_parts import SPAN_KERNELS, STEP_GAPS, STEP_KERNELS

if TYPE_CHECKING:
    import pandas as pd

TRACE_FILE: Final = "trace.json.gz"
MAX_EVENTS: Final = 500_000
"""About 80 MB of JSON: what Perfetto opens in a few seconds."""
REQUESTS_PID: Final = 1
_FIRST_REPLICA_PID: Final = 2
_ITERATIONS_TID: Final = 0
_PHASES: Final = (
    ("queued", "arrival_ns", "first_scheduled_ns"),
    ("prefill", "first_scheduled_ns", "first_token_ns"),
    ("decode", "first_token_ns", "finish_ns"),
)

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TracedRun:
    """What a trace is made of.

    Attributes:
        title: What ran.
        ranks: GPUs of a replica.
        num_blocks: KV blocks of a replica.
        idle_w: Power of an idle replica.
        steps: See :func:`sim.steps.steps_table`.
        iterations: See :class:`sim.results.RunResult`.
        requests: See :func:`sim.outcomes.outcomes_table`.
        off: (replica, start, end) in ns of stretches without power.
    """

    title: str
    ranks: int
    num_blocks: int
    idle_w: float
    steps: pd.DataFrame
    iterations: pd.DataFrame
    requests: pd.DataFrame
    off: frozenset[tuple[int, int, int]] = frozenset()


def trace_document(run: TracedRun, max_events: int = MAX_EVENTS) -> dict[str, Any]:
    """The trace; cut after the last iteration or request that fits.

    Requests come first and take at most half of the events. What was left out is
    said under ``otherData``.
    """
    events = list(_names(run))
    requests = _whole(_requests(run.requests), max_events // 2)
    events += requests.events
    events += _power_of_off(run)
    steps = _whole(_iterations(run), max_events - len(events))
    events += steps.events
    return {
        "displayTimeUnit": "ms",
        "otherData": {
            "title": run.title,
            "requests_left_out": requests.left_out,
            "iterations_left_out": steps.left_out,
        },
        "traceEvents": events,
    }


@dataclass(frozen=True, slots=True)
class _Taken:
    events: list[Event]
    left_out: int


def _whole(groups: Iterator[list[Event]], room: int) -> _Taken:
    """Groups of events in order while they fit; how many more there were."""
    events: list[Event] = []
    left_out, full = 0, False
    for group in groups:
        full = full or len(events) + len(group) > room
        if full:
            left_out += 1
        else:
            events += group
    return _Taken(events, left_out)


def _names(run: TracedRun) -> Iterator[Event]:
    yield _name("process_name", REQUESTS_PID, 0, "requests")
    for replica in sorted(set(run.iterations["replica"])):
        pid = _FIRST_REPLICA_PID + int(replica)
        yield _name("process_name", pid, 0, f"replica {replica}: {run.title}")
        yield _name("thread_name", pid, _ITERATIONS_TID, "iterations")
        for rank in range(run.ranks):
            yield _name("thread_name", pid, rank + 1, f"rank {rank}")


def _name(kind: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def _requests(requests: pd.DataFrame) -> Iterator[list[Event]]:
    """One nestable span per served request, and its phases inside."""
    for row in _records(requests[requests["finish_ns"].notna()]):
        identity = int(row["id"])
        name = f"request {identity}"
        args = {
            "prompt_tokens": int(row["prompt_tokens"]),
            "output_tokens": int(row["output_tokens"]),
            "preemptions": int(row["preemptions"]),
            "replica": int(row["replica"]),
        }
        start_ns, end_ns = int(row["arrival_ns"]), int(row["finish_ns"])
        group = [_async("b", name, identity, start_ns) | {"args": args}]
        for phase, first, last in _PHASES:
            group.append(_async("b", phase, identity, int(row[first])))
            group.append(_async("e", phase, identity, int(row[last])))
        yield [*group, _async("e", name, identity, end_ns)]


def _async(phase: str, name: str, identity: int, time_ns: int) -> Event:
    return {
        "ph": phase,
        "cat": "request",
        "name": name,
        "id": identity,
        "pid": REQUESTS_PID,
        "tid": 0,
        "ts": time_ns / 1e3,
    }


def _iterations(run: TracedRun) -> Iterator[list[Event]]:
    """Events of each iteration, all replicas in order of time."""
    by_replica = run.iterations.groupby("replica")
    known = run.iterations.assign(
        iteration=by_replica.cumcount(), next_ns=by_replica["start_ns"].shift(-1)
    )
    states = {(row["replica"], row["iteration"]): row for row in _records(known)}
    ordered = run.steps.sort_values(
        ["start_ns", "replica", "iteration", "first_layer"], kind="stable"
    )
    rows = _records(ordered)
    starts_off = {(replica, start_ns) for replica, start_ns, _ in run.off}
    for key, spans in groupby(rows, lambda row: (row["replica"], row["iteration"])):
        yield list(_iteration(run, list(spans), states[key], starts_off))


def _iteration(
    run: TracedRun,
    spans: list[Event],
    state: Event,
    starts_off: set[tuple[int, int]],
) -> Iterator[Event]:
    first = spans[0]
    pid = _FIRST_REPLICA_PID + int(first["replica"])
    start_ns, end_ns = int(first["start_ns"]), int(first["end_ns"])
    args = {"iteration": int(first["iteration"]), "energy_j": state["energy_j"]}
    title = _title(
        sum(int(span["prefill_tokens"]) for span in spans), int(first["decode_tokens"])
    )
    yield _complete(title, pid, _ITERATIONS_TID, start_ns, end_ns - start_ns, args)
    for rank in range(run.ranks):
        yield from _rank(spans, pid, rank + 1, start_ns)
    power_w = state["energy_j"] / (end_ns - start_ns) * 1e9
    kv_share = state["used_blocks"] / run.num_blocks
    busy = (state["running"], state["waiting"], kv_share, power_w)
    yield from _counters(pid, start_ns, *busy)
    if state["next_ns"] != end_ns:
        goes_off = (int(first["replica"]), end_ns) in starts_off
        idle_w = 0.0 if goes_off else run.idle_w
        yield from _counters(pid, end_ns, 0, 0, 0.0, idle_w)


def _power_of_off(run: TracedRun) -> Iterator[Event]:
    for replica, start_ns, end_ns in sorted(run.off):
        pid = _FIRST_REPLICA_PID + replica
        yield _counter("power_w", pid, start_ns, {"power_w": 0.0})
        yield _counter("power_w", pid, end_ns, {"power_w": run.idle_w})


def _counters(
    pid: int, time_ns: int, running: int, waiting: int, kv_share: float, power_w: float
) -> Iterator[Event]:
    requests = {"running": running, "waiting": waiting}
    yield _counter("requests", pid, time_ns, requests)
    yield _counter("kv_cache_usage_perc", pid, time_ns, {"share": kv_share})
    yield _counter("power_w", pid, time_ns, {"power_w": power_w})


def _rank(spans: list[Event], pid: int, tid: int, time_ns: int) -> Iterator[Event]:
    """What a rank runs: wait for the host, layers, head; one after the other.

    Ranks of a tensor-parallel group run the same kernels at the same time; times are
    those of the slowest rank.
    """
    for part in reversed(STEP_GAPS):
        yield from _slice(part, pid, tid, time_ns, int(spans[0][f"{part}_ns"]))
        time_ns += int(spans[0][f"{part}_ns"])
    for span in spans:
        times = {part: int(span[f"{part}_ns"]) for part in SPAN_KERNELS}
        layers = {"first_layer": span["first_layer"], "last_layer": span["last_layer"]}
        tokens = _title(int(span["prefill_tokens"]), int(span["decode_tokens"]))
        name = f"layers {span['first_layer']}-{span['last_layer'] - 1}: {tokens}"
        if total_ns := sum(times.values()):
            yield _complete(name, pid, tid, time_ns, total_ns, layers)
        for part, duration_ns in times.items():
            yield from _slice(part, pid, tid, time_ns, duration_ns)
            time_ns += duration_ns
    for part in STEP_KERNELS:
        yield from _slice(part, pid, tid, time_ns, int(spans[0][f"{part}_ns"]))
        time_ns += int(spans[0][f"{part}_ns"])


def _title(prefill_tokens: int, decode_tokens: int) -> str:
    parts = [f"prefill {prefill_tokens}"] if prefill_tokens else []
    parts += [f"decode {decode_tokens}"] if decode_tokens else []
    return " + ".join(parts) or "no tokens"


def _slice(
    name: str, pid: int, tid: int, time_ns: int, duration_ns: int
) -> Iterator[Event]:
    if duration_ns:
        yield _complete(name, pid, tid, time_ns, duration_ns, {})


def _records(frame: pd.DataFrame) -> list[Event]:
    return [
        {str(key): value for key, value in row.items()}
        for row in frame.to_dict("records")
    ]


def _complete(
    name: str, pid: int, tid: int, time_ns: int, duration_ns: int, args: Event
) -> Event:
    return {
        "ph": "X",
        "cat": "sim",
        "name": name,
        "pid": pid,
        "tid": tid,
        "ts": time_ns / 1e3,
        "dur": duration_ns / 1e3,
        "args": args,
    }


def _counter(name: str, pid: int, time_ns: int, values: Event) -> Event:
    return {"ph": "C", "name": name, "pid": pid, "ts": time_ns / 1e3, "args": values}
