"""Columns that grow by one row per iteration of a replica."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.engine import Engine
from sim.log_stretch import DecodeStretch, write_out
from sim.plan import StepPlan
from sim.span_log import SpanLog
from sim.step import (
    NUM_COUNTS,
    NUM_JOULES,
    DecodeCosts,
    Float64,
    Int64,
    StepCost,
    decode_joules,
    decode_sums,
)

_FOLD: Final = 1024  # entries that are kept before their columns are worked out
_MOST: Final = 1 << 15  # iterations among them
_LATEST_NS: Final = (1 << 63) - 1


class Begun(NamedTuple):
    """An engine when an iteration has begun; fields as the columns of the log."""

    start_ns: int
    running: int
    waiting: int
    used_blocks: int
    decoding: int


def begun(start_ns: int, engine: Engine) -> Begun:
    """What the log will say of an iteration that starts now, whatever comes of it."""
    decoding = engine.decoding.size
    return Begun(
        start_ns,
        decoding + len(engine.prefilling),
        len(engine.waiting),
        engine.num_blocks - engine.free_blocks,
        decoding,
    )


class IterationLog:
    """Iterations of one replica, and their sums.

    What an iteration did is kept as it is told; columns and sums are worked out for
    many at a time, the latest when one is asked for.

    Args:
        detailed: Keep a row per iteration; without, all columns but ``decode_end_ns``
            stay empty.

    Attributes:
        detailed: Whether there is a row per iteration.
        last_end_ns: End of the last iteration, 0 before there is one.
        decode_end_ns: End of each iteration that decoded; token times slice it.
        chunks: Prompt chunks and the layers they ran in.
    """

    def __init__(self, *, detailed: bool = True) -> None:
        self.last_end_ns = 0
        self.detailed = detailed
        self._length = 0
        self._pending = 0  # iterations
        self.decode_end_ns = array("q")
        self.chunks = SpanLog()
        self._columns = {name: array("q") for name in _ROW}
        self._energy_j = array("d")
        self._entries: list[StepCost | DecodeStretch] = []
        self._rows: list[tuple[int, ...]] = []  # of the entries, if detailed
        self._count_sums = [0] * NUM_COUNTS
        self._joule_sums = np.zeros(NUM_JOULES)

    def __len__(self) -> int:
        """Iterations so far."""
        return self._length

    @property
    def totals(self) -> dict[str, float]:
        """Sums of the :class:`~sim.step.StepCost` fields."""
        self._fold()
        sums = (*self._count_sums, *self._joule_sums.tolist())
        return dict(zip(StepCost._fields, sums, strict=True))

    @property
    def start_ns(self) -> array[int]:
        """Start of each iteration."""
        return self._column("start_ns")

    @property
    def end_ns(self) -> array[int]:
        """End of each iteration."""
        return self._column("end_ns")

    @property
    def running(self) -> array[int]:
        """Requests that decode or prefill in it."""
        return self._column("running")

    @property
    def waiting(self) -> array[int]:
        """Requests left waiting."""
        return self._column("waiting")

    @property
    def used_blocks(self) -> array[int]:
        """KV blocks held in it."""
        return self._column("used_blocks")

    @property
    def prefill_layer_tokens(self) -> array[int]:
        """Prompt tokens times layers computed."""
        return self._column("prefill_layer_tokens")

    @property
    def decode_tokens(self) -> array[int]:
        """Decode rows."""
        return self._column("decode_tokens")

    @property
    def decoding(self) -> array[int]:
        """Requests that decode, also where this iteration does not run them."""
        return self._column("decoding")

    @property
    def energy_j(self) -> array[float]:
        """Energy of each iteration."""
        self._fold()
        return self._energy_j

    def append(self, begun: Begun, plan: StepPlan, cost: StepCost) -> None:
        """Record an iteration; its end follows from its cost.

        Raises:
            OverflowError: If it would end after 2**63 ns.
        """
        end_ns = begun.start_ns + cost.duration_ns
        if end_ns > _LATEST_NS:
            raise OverflowError
        decodes = begun.decoding if plan.spans[0].decode else 0
        if decodes:
            self.decode_end_ns.append(end_ns)
        if self.detailed:
            work = self.chunks.append(self._length, plan)
            self._rows.append(_row(begun, end_ns, work, decodes))
        self._add(cost, 1, end_ns)

    def append_lost(self, begun: Begun, cost: StepCost) -> None:
        """Record an iteration that a failure cut off: it took time and did nothing."""
        end_ns = begun.start_ns + cost.duration_ns
        if self.detailed:
            self._rows.append(_row(begun, end_ns, 0, 0))
        self._add(cost, 1, end_ns)

    def append_decodes(
        self, begun: Begun, ends: Int64, costs: DecodeCosts, cycle: Sequence[int]
    ) -> None:
        """Record iterations in a row that decode only.

        Args:
            begun: The first of them.
            ends: End of each, shape (steps,).
            costs: Costs of at least as many.
            cycle: See :class:`~sim.log_stretch.DecodeStretch`.
        """
        end_ns = int(ends[-1])
        self.decode_end_ns.frombytes(ends.tobytes())
        if self.detailed:
            self._rows.append(_row(begun, end_ns, 0, begun.decoding))
        self._add(DecodeStretch(costs, ends, cycle), ends.size, end_ns)

    def _add(
        self, entry: StepCost | DecodeStretch, iterations: int, end_ns: int
    ) -> None:
        self._entries.append(entry)
        self._length += iterations
        self._pending += iterations
        self.last_end_ns = end_ns
        if len(self._entries) >= _FOLD or self._pending >= _MOST:
            self._fold()

    def _column(self, name: str) -> array[int]:
        self._fold()
        return self._columns[name]

    def _fold(self) -> None:
        """Work out what is kept."""
        entries, rows = self._entries, self._rows
        if not entries:
            return
        self._entries, self._rows, self._pending = [], [], 0
        stretches = [each for each in entries if isinstance(each, DecodeStretch)]
        steps = [
            each.steps if isinstance(each, DecodeStretch) else 1 for each in entries
        ]
        is_stretch = np.array([isinstance(each, DecodeStretch) for each in entries])
        inside = np.repeat(is_stretch, steps)
        joules = self._add_up(entries, stretches, inside)
        if self.detailed:
            run, wait, hbm, flop = joules.T
            self._energy_j.frombytes((run + wait + hbm + flop).tobytes())
            table = np.array(rows, dtype=np.int64)
            starts_ns = table[is_stretch, _ROW.index("start_ns")]
            columns = dict(zip(_ROW, np.repeat(table, steps, axis=0).T, strict=True))
            if stretches:
                start, end, blocks = write_out(stretches, starts_ns)
                columns["start_ns"][inside] = start
                columns["end_ns"][inside] = end
                columns["used_blocks"][inside] += blocks
            for name, values in columns.items():
                self._columns[name].frombytes(values.tobytes())

    def _add_up(
        self,
        entries: Sequence[StepCost | DecodeStretch],
        stretches: Sequence[DecodeStretch],
        inside: npt.NDArray[np.bool_],
    ) -> Float64:
        """Sum costs, integers exactly and joules one by one; returns the joules.

        ``inside`` tells of each iteration whether it is part of a stretch.
        """
        singles = [each for each in entries if isinstance(each, StepCost)]
        parts = [(each.costs, each.steps) for each in stretches]
        joules = np.empty((inside.size, NUM_JOULES))
        joules[inside] = decode_joules(parts)
        if singles:
            joules[~inside] = [cost[NUM_COUNTS:] for cost in singles]
        sums = zip(
            *(cost[:NUM_COUNTS] for cost in singles), decode_sums(parts), strict=True
        )
        self._count_sums = [
            known + sum(values)
            for known, values in zip(self._count_sums, sums, strict=True)
        ]
        in_order = np.vstack((self._joule_sums, joules))
        self._joule_sums = np.add.accumulate(in_order)[-1]
        return joules


def _row(begun: Begun, end_ns: int, work: int, decodes: int) -> tuple[int, ...]:
    """A row of the columns below."""
    start_ns, running, waiting, used_blocks, decoding = begun
    state = running, waiting, used_blocks
    return start_ns, end_ns, *state, work, decodes, decoding


_ROW: Final = (
    "start_ns",
    "end_ns",
    "running",
    "waiting",
    "used_blocks",
    "prefill_layer_tokens",
    "decode_tokens",
    "decoding",
)
"""Columns, in the order of a row."""
