"""What became of each request, in columns: memory per request is a few dozen bytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from sim.request import Request, RequestRecord, TokenRun
from sim.request_table import RequestTable

Int64 = npt.NDArray[np.int64]

_UNKNOWN: Final = -(1 << 63)
"""Stands for None among integers; no time or count is that small."""
_BLANK: Final = RequestRecord(
    request=Request(id=0, arrival_ns=0, prompt_tokens=1, output_tokens=1),
    arrival_ns=0,
    runs=[],
)
_DENSE: Final = tuple(
    field.name for field in fields(RequestRecord) if field.type in ("int", "int | None")
)
"""Fields every request has a number for; the others hardly ever differ from blank."""
_RUN: Final = len(fields(TokenRun))
_SPARSE: Final = tuple(
    field.name
    for field in fields(RequestRecord)
    if field.name not in (*_DENSE, "request", "runs")
)


class RecordTable(Sequence[RequestRecord]):
    """Records of a run in workload order; each is built when it is asked for.

    A record under way is the object itself; :meth:`close` moves it into the columns,
    after which changes to the object are not seen.

    Args:
        requests: The workload; the record at k is that of request k.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self._requests = requests
        size = len(requests)
        self._columns = {
            name: array("q", [_number(getattr(_BLANK, name))]) * size for name in _DENSE
        }
        # By id; a table of requests numbers them, and may be too long for a dict.
        self._places: Mapping[int, int] | range = (
            range(size)
            if isinstance(requests, RequestTable)
            else {request.id: place for place, request in enumerate(requests)}
        )
        self._open: dict[int, RequestRecord] = {}  # by place
        self._odd: dict[str, dict[int, Any]] = {name: {} for name in _SPARSE}
        self._runs = array("q")
        self._first_run = array("q", [0]) * size
        self._num_runs = array("i", [0]) * size

    @classmethod
    def of(cls, records: Sequence[RequestRecord]) -> RecordTable:
        """The table of some records; itself if they are one."""
        if isinstance(records, cls):
            return records
        table = cls([record.request for record in records])
        for position, record in enumerate(records):
            table._store(position, record)
        return table

    def open(self, record: RequestRecord) -> None:
        """Take in a record, which will still change."""
        self._open[self._places[record.request.id]] = record

    def close(self, record: RequestRecord) -> None:
        """Keep an open record as it is now."""
        position = self._places[record.request.id]
        del self._open[position]
        self._store(position, record)

    def _store(self, position: int, record: RequestRecord) -> None:
        for name, column in self._columns.items():
            column[position] = _number(getattr(record, name))
        for name, odd in self._odd.items():
            value = getattr(record, name)
            if value != getattr(_BLANK, name):
                odd[position] = value
        self._first_run[position] = len(self._runs) // _RUN
        self._num_runs[position] = len(record.runs)
        for run in record.runs:
            self._runs.extend((run.first_ns, run.start, run.stop, run.resumed))

    def __len__(self) -> int:
        """Requests of the workload."""
        return len(self._requests)

    @overload
    def __getitem__(self, index: int) -> RequestRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[RequestRecord]: ...

    def __getitem__(self, index: int | slice) -> RequestRecord | list[RequestRecord]:
        """The record of one request, or of several."""
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        under_way = self._open.get(position)
        if under_way is not None:
            return under_way
        dense = {name: _value(c[position]) for name, c in self._columns.items()}
        odd = {k: v[position] for k, v in self._odd.items() if position in v}
        return RequestRecord(
            request=self._requests[position],
            runs=self.runs(position),
            **(dense | odd),
        )

    def __iter__(self) -> Iterator[RequestRecord]:
        """Records in workload order."""
        return (self[position] for position in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether the other holds equal records in the same order."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def runs(self, position: int) -> list[TokenRun]:
        """Token times of a closed record."""
        first = self._first_run[position]
        flat = self._runs[_RUN * first : _RUN * (first + self._num_runs[position])]
        return [
            TokenRun(flat[k], flat[k + 1], flat[k + 2], bool(flat[k + 3]))
            for k in range(0, len(flat), _RUN)
        ]

    def column(self, name: str) -> Int64:
        """An integer field of every request; where it is None the value is undefined.

        Args:
            name: Field of :class:`~sim.request.RequestRecord`.
        """
        self._settle()
        return np.frombuffer(self._columns[name], dtype=np.int64)

    def known(self, name: str) -> npt.NDArray[np.bool_]:
        """Where a field of :meth:`column` is not None."""
        known: npt.NDArray[np.bool_] = self.column(name) != _UNKNOWN
        return known

    def odd(self, name: str) -> dict[int, Any]:
        """Values of a field that is not an integer, where they differ from blank."""
        self._settle()
        return self._odd[name]

    def prompt_tokens(self) -> Int64:
        """Prompt tokens of every request."""
        if isinstance(self._requests, RequestTable):
            return self._requests.prompt_tokens
        return np.fromiter(
            (request.prompt_tokens for request in self._requests),
            dtype=np.int64,
            count=len(self),
        )

    def _settle(self) -> None:
        """Copy records under way into the columns as they are now."""
        for position, record in self._open.items():
            self._store(position, record)


def _number(value: int | None) -> int:
    return _UNKNOWN if value is None else value


def _value(number: int) -> int | None:
    return None if number == _UNKNOWN else number
