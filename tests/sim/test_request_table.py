"""Requests in columns are the requests that went in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.record_table import RecordTable
from sim.request import Request
from sim.request_table import RequestTable

_ROWS = st.lists(st.tuples(*(st.integers(0, 2**62) for _ in range(4))), max_size=6)


def _table(rows: list[tuple[int, ...]]) -> RequestTable:
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return RequestTable(*columns)


@given(rows=_ROWS)
def test_rows_are_requests(rows: list[tuple[int, int, int, int]]) -> None:
    """By iteration, one by one from both ends, and in slices."""
    expected = [
        Request(id=k, arrival_ns=a, prompt_tokens=p, output_tokens=o, client=c)
        for k, (a, p, o, c) in enumerate(rows)
    ]
    table = _table(rows)
    assert list(table) == expected
    assert table == expected
    assert [table[k] for k in range(-len(rows), 0)] == expected
    assert table[1:] == tuple(expected[1:])
    assert RecordTable(table).prompt_tokens().tolist() == [row[1] for row in rows]


def test_iteration_crosses_blocks() -> None:
    """More rows than are built at a time."""
    rows = [(k, k + 1, k + 2, 0) for k in range(10_000)]
    assert [r.arrival_ns for r in _table(rows)] == list(range(10_000))


def test_unequal_and_unlike() -> None:
    """Another length, another request, another type."""
    table = _table([(0, 1, 2, 3)])
    assert table != []
    assert table != _table([(0, 1, 2, 4)])
    assert table != 3
