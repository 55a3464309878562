"""Iterations in full detail: which layers ran which tokens, in which kernels."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from sim.iteration_log import IterationLog
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.record_table import RecordTable
from sim.request import RequestRecord
from sim.step_parts import PARTS, StepParts
from sim.table import Table
from sim.units import NS_PER_S

WINDOW_NS: Final = 10 * NS_PER_S
STEP_COLUMNS: Final = (
    "replica",
    "iteration",
    "start_ns",
    "end_ns",
    "first_layer",
    "last_layer",
    "decode_tokens",
    "prefill_tokens",
    "prefill_requests",
    *(f"{part}_ns" for part in PARTS),
)
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of simulated time (ns), its end excluded."""

    start_ns: int
    end_ns: int


def middle_window(records: Sequence[RequestRecord]) -> Window:
    """Ten seconds from half of the last arrival on, in whole seconds.

    It depends on the arrivals alone, so policies that serve the same requests show
    the same stretch.
    """
    last_ns = int(RecordTable.of(records).column("arrival_ns").max(initial=0))
    start_ns = last_ns // 2 // NS_PER_S * NS_PER_S
    return Window(start_ns, start_ns + WINDOW_NS)


def steps_table(
    logs: Sequence[IterationLog],
    records: Sequence[RequestRecord],
    parts: Sequence[StepParts | None] | StepParts | None,
    num_layers: int,
    window: Window | None = None,
    copies: Sequence[Mapping[int, int]] = (),
) -> Table:
    """Layer spans of iterations with their kernel times.

    Args:
        logs: Iterations of each replica.
        records: Requests of the run, and attempts that failures ended.
        parts: Splits an iteration into kernels, of all replicas or of each; None where
            no pure split exists (experts that move, phases that run at once), which
            gives no rows.
        num_layers: Layers of the model.
        window: Only iterations that start in it; None for all.
        copies: Of each replica, by start of the iteration, the time (ns) in which it
            waits for KV blocks from or to the host, part of ``host_ns``; empty where
            none are copied.

    Returns:
        One row per span, in order of time within a replica, under ``STEP_COLUMNS``:
        layers from ``first_layer`` to before ``last_layer``, ``decode_tokens`` and
        ``prefill_tokens`` through them (the latter of ``prefill_requests``), and the
        time of each part. Parts outside the layers stand in the first span of the
        iteration; all parts of an iteration add up to ``end_ns - start_ns``.
        Iterations that a failure cut off have no row.
    """
    each = parts if isinstance(parts, Sequence) else [parts] * len(logs)
    rows = [
        row
        for replica, (log, own) in enumerate(zip(logs, each, strict=True))
        if own is not None
        for row in _replica_rows(
            replica,
            log,
            _contexts(log, _of(records, replica)),
            own,
            num_layers,
            window,
            copies[replica] if copies else {},
        )
    ]
    columns = np.array(rows, dtype=np.int64).reshape(-1, len(STEP_COLUMNS)).T
    return Table(dict(zip(STEP_COLUMNS, columns, strict=True)))


def _of(records: Iterable[RequestRecord], replica: int) -> list[RequestRecord]:
    return [record for record in records if record.replica == replica]


def _contexts(log: IterationLog, records: Iterable[RequestRecord]) -> Int64:
    """KV tokens attended to in each decode iteration, new ones included.

    A request that joins at tick ``s`` with ``b`` tokens stored attends to
    ``b + t - s + 1`` at tick ``t``, until it stops.
    """
    ticks = len(log.decode_end_ns) + 1
    members = np.zeros(ticks, dtype=np.int64)
    offsets = np.zeros(ticks, dtype=np.int64)
    for record in records:
        stored = record.request.prompt_tokens
        for run in record.runs:
            offset = stored - run.start + 1
            start = run.stop - run.decodes
            members[start] += 1
            members[run.stop] -= 1
            offsets[start] += offset
            offsets[run.stop] -= offset
            stored += 1 + run.stop - run.start
    contexts = np.cumsum(offsets) + np.cumsum(members) * np.arange(ticks)
    return np.asarray(contexts[:-1], dtype=np.int64)


def _replica_rows(
    replica: int,
    log: IterationLog,
    contexts: Int64,
    parts: StepParts,
    num_layers: int,
    window: Window | None,
    copies: Mapping[int, int],
) -> Iterator[tuple[int, ...]]:
    first, last = 0, len(log)
    if window is not None:
        first = bisect_left(log.start_ns, window.start_ns)
        last = bisect_left(log.start_ns, window.end_ns)
    decode_ends = log.decode_end_ns
    for index in range(first, last):
        end_ns = log.end_ns[index]
        if not (log.decode_tokens[index] or log.prefill_layer_tokens[index]):
            continue  # lost in a failure: nothing came of it
        tick = bisect_left(decode_ends, end_ns)
        decodes = tick < len(decode_ends) and decode_ends[tick] == end_ns
        plan = _plan(log, index, num_layers, decode=decodes)
        decoding = log.decoding[index]
        context = int(contexts[tick]) if decodes else 0
        spans, step = parts.split(plan, decoding, context)
        if copies:
            step["host"] += copies.get(log.start_ns[index], 0)
        for place, (span, kernels) in enumerate(zip(plan.spans, spans, strict=True)):
            times = kernels | (step if place == 0 else {})
            yield (
                replica,
                index,
                log.start_ns[index],
                end_ns,
                span.first,
                span.last,
                decoding if span.decode else 0,
                sum(chunk.tokens for chunk in span.prefill),
                len({chunk.request_id for chunk in span.prefill}),
                *(times.get(part, 0) for part in PARTS),
            )


def _plan(log: IterationLog, index: int, num_layers: int, *, decode: bool) -> StepPlan:
    """The plan of an iteration again, without its preemptions."""
    chunks = log.chunks
    spans: list[LayerSpan] = []
    rows = range(
        bisect_left(chunks.iteration, index), bisect_right(chunks.iteration, index)
    )
    by_layers: dict[tuple[int, int], list[PrefillChunk]] = {}
    for row in rows:
        chunk = PrefillChunk(
            chunks.request_id[row], chunks.prefix_tokens[row], chunks.chunk_tokens[row]
        )
        key = (chunks.first_layer[row], chunks.last_layer[row])
        by_layers.setdefault(key, []).append(chunk)
    reached = 0
    for (first, last), prefill in by_layers.items():
        if reached < first:
            spans.append(LayerSpan(reached, first, decode=decode))
        spans.append(LayerSpan(first, last, tuple(prefill), decode))
        reached = last
    if reached < num_layers:
        spans.append(LayerSpan(reached, num_layers, decode=decode))
    return StepPlan(tuple(spans))
