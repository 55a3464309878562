"""From a spec to the requests themselves: all randomness is spent here."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.errors import ConfigError
from sim.prefix import Prefix
from sim.request import Request
from sim.request_table import RequestTable
from sim.units import ns_from_s
from workloads.arrivals import open_loop_ns
from workloads.clients import client_of
from workloads.datasets import CUT_TO_CONTEXT, DATASETS, sampler_for
from workloads.sessions import draw_turns
from workloads.spec import WorkloadSpec
from workloads.streams import stream
from workloads.traces import Trace, read_trace

__all__ = ["DATASETS", "Workload", "WorkloadSpec", "build_workload"]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Materialised requests; what two policies under comparison share.

    No slots, so that ``sha256`` can be cached.

    Attributes:
        name: Dataset, or file name of the trace.
        requests: In arrival order, ids 0, 1, ...; not empty.
        max_concurrency: Clients of a closed loop, whose requests all have arrival 0
            and are sent in order, one whenever a client is free; None: open loop.
        offered_rate: Requests per second the users offer; infinite when all wait from
            the start; None when a trace brought its own arrival times.

    Raises:
        ConfigError: If the requests are not as said.
    """

    name: str
    requests: Sequence[Request]
    max_concurrency: int | None = None
    offered_rate: float | None = None

    def __post_init__(self) -> None:
        if not self.requests:
            raise ConfigError(f"workload {self.name}: no requests; allowed: at least 1")
        closed = self.max_concurrency is not None
        last_ns = 0
        for position, request in enumerate(self.requests):
            arrival_ns = request.arrival_ns
            if arrival_ns < last_ns or (closed and arrival_ns):
                raise ConfigError(
                    f"workload {self.name}: request {position}: arrival_ns {arrival_ns}"
                    f"; allowed: {'0 in a closed loop' if closed else f'>= {last_ns}'}"
                )
            if request.id != position:
                raise ConfigError(
                    f"workload {self.name}: id {request.id}; allowed: {position}"
                )
            last_ns = arrival_ns

    @cached_property
    def sha256(self) -> str:
        """Hash of the integers: concurrency (0 if open), requests, and what else is.

        Clients, prefixes and think times are left out where all are alike.
        """
        numbers = array("q", [self.max_concurrency or 0])
        for r in self.requests:
            numbers.extend((r.arrival_ns, r.prompt_tokens, r.output_tokens))
        if any(r.client for r in self.requests):
            numbers.extend(r.client for r in self.requests)
        if any(r.prefix.segments for r in self.requests):
            for r in self.requests:
                numbers.extend((len(r.prefix.ends), *r.prefix.segments, *r.prefix.ends))
        if any(r.think_ns is not None for r in self.requests):
            numbers.extend(
                -1 if r.think_ns is None else r.think_ns for r in self.requests
            )
        return hashlib.sha256(np.array(numbers, dtype="<i8").tobytes()).hexdigest()


def build_workload(spec: WorkloadSpec) -> Workload:
    """Materialise a workload from the streams arrivals, prompt_len and output_len.

    Request k is the same whatever the arrival rate and the number of requests.

    Raises:
        ConfigError: If the trace is bad or the options do not fit together.
    """
    if spec.path is not None:
        return _from_trace(spec, read_trace(spec.path))
    arrivals = _arrivals(spec, spec.num_requests)
    if spec.session_turns_mean > 1:
        return _with_sessions(spec, arrivals)
    prompt, output = _lengths(spec, arrivals.size)
    return _materialise(spec, spec.dataset, arrivals, prompt, output)


def _lengths(
    spec: WorkloadSpec, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Prompt and output lengths of a dataset's first ``count`` requests."""
    prompt, output = sampler_for(spec).sample(
        count, stream(spec.seed, "prompt_len"), stream(spec.seed, "output_len")
    )
    if spec.context_tokens is not None and spec.dataset in CUT_TO_CONTEXT:
        prompt = np.minimum(prompt, np.maximum(spec.context_tokens - output, 1))
    return prompt, output


def _with_sessions(spec: WorkloadSpec, arrivals: NDArray[np.int64]) -> Workload:
    """Sessions that begin at some times."""
    if not arrivals.size:
        raise _too_short(spec)
    turns = draw_turns(spec, partial(_lengths, spec), arrivals.size)
    table = RequestTable(
        arrivals[turns.session],
        turns.prompt_tokens,
        turns.output_tokens,
        client_of(spec, arrivals.size)[turns.session],
        turns.prefixes,
        turns.think_ns,
    )
    return _workload(spec, spec.dataset, table)


def _from_trace(spec: WorkloadSpec, trace: Trace) -> Workload:
    rows = trace.prompt_tokens.size
    if spec.num_requests is not None and spec.num_requests > rows:
        raise _too_few_rows(spec, rows, spec.num_requests)
    given = trace.arrival_ns if spec.max_concurrency is None else None
    if given is not None:
        arrivals = given[: spec.num_requests]
        if spec.duration_s is not None:
            arrivals = arrivals[arrivals < ns_from_s(spec.duration_s)]
    else:
        all_rows = rows if spec.duration_s is None else None
        arrivals = _arrivals(spec, spec.num_requests or all_rows)
    n = arrivals.size
    if n > rows:
        raise _too_few_rows(spec, rows, n)
    name = Path(trace.path).name
    prompt, output = trace.prompt_tokens[:n], trace.output_tokens[:n]
    shared = None if trace.prefixes is None else trace.prefixes[:n]
    timed = given is not None
    return _materialise(spec, name, arrivals, prompt, output, shared, timed=timed)


def _too_few_rows(spec: WorkloadSpec, rows: int, wanted: int) -> ConfigError:
    return ConfigError(
        f"workload.num_requests: {wanted} requests from {spec.path}; "
        f"allowed: at most its {rows} rows"
    )


def _arrivals(spec: WorkloadSpec, num_requests: int | None) -> NDArray[np.int64]:
    if spec.max_concurrency is None:
        return open_loop_ns(
            stream(spec.seed, "arrivals"),
            request_rate=spec.request_rate,
            burstiness=spec.burstiness,
            num_requests=num_requests,
            duration_s=spec.duration_s,
        )
    if spec.duration_s is not None or num_requests is None:
        raise ConfigError(
            f"workload.max_concurrency: {spec.max_concurrency} with duration_s "
            f"{spec.duration_s} and num_requests {num_requests}; allowed: a closed loop"
            " is bounded by num_requests alone"
        )
    return np.zeros(num_requests, dtype=np.int64)


def _materialise(
    spec: WorkloadSpec,
    name: str,
    arrivals: NDArray[np.int64],
    prompt: NDArray[np.int64],
    output: NDArray[np.int64],
    prefixes: Sequence[Prefix] | None = None,
    *,
    timed: bool = False,
) -> Workload:
    """The workload of some columns; `timed`: a trace gave the arrivals."""
    if not arrivals.size:
        raise _too_short(spec)
    columns = (arrivals, prompt, output, client_of(spec, arrivals.size))
    return _workload(spec, name, RequestTable(*columns, prefixes), timed=timed)


def _too_short(spec: WorkloadSpec) -> ConfigError:
    return ConfigError(
        f"workload.duration_s: {spec.duration_s} ends before the first arrival; "
        "allowed: a window with at least 1 arrival"
    )


def _workload(
    spec: WorkloadSpec, name: str, requests: RequestTable, *, timed: bool = False
) -> Workload:
    closed = spec.max_concurrency is not None
    return Workload(
        name=name,
        requests=requests,
        max_concurrency=spec.max_concurrency,
        offered_rate=None if timed else math.inf if closed else spec.request_rate,
    )
