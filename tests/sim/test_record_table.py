"""Records in columns are the records that went in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sim.metrics import latency_sample
from sim.record_table import RecordTable
from sim.request import Request, RequestRecord, TokenRun

_NS = st.integers(0, 2**62)
_MAYBE_NS = st.none() | _NS
_RUNS = st.lists(st.builds(TokenRun, _NS, _NS, _NS), max_size=3)


@st.composite
def _records(draw: st.DrawFn) -> list[RequestRecord]:
    return [
        RequestRecord(
            request=Request(
                id=position,
                arrival_ns=draw(_NS),
                prompt_tokens=draw(st.integers(1, 10**6)),
                output_tokens=draw(st.integers(1, 10**6)),
            ),
            arrival_ns=draw(_NS),
            replica=draw(st.integers(-1, 3)),
            first_scheduled_ns=draw(_MAYBE_NS),
            first_token_ns=draw(_MAYBE_NS),
            finish_ns=draw(_MAYBE_NS),
            output_tokens=draw(st.integers(0, 10**6)),
            preemptions=draw(st.integers(0, 9)),
            rejected=draw(st.none() | st.text(min_size=1, max_size=9)),
            runs=draw(_RUNS),
        )
        for position in range(draw(st.integers(0, 5)))
    ]


@given(records=_records())
def test_closed_records_come_back_equal(records: list[RequestRecord]) -> None:
    """One by one, in order, in slices, and whatever order they were closed in."""
    table = RecordTable([record.request for record in records])
    for record in records:
        table.open(record)
    for record in reversed(records):
        table.close(record)
    assert table == records
    assert list(table) == records
    assert table[1:] == records[1:]
    assert table == RecordTable.of(records)


@given(records=_records())
def test_columns_are_the_fields(records: list[RequestRecord]) -> None:
    """Integers as they are, with what is None told apart; the rest by position."""
    table = RecordTable.of(records)
    finish = table.column("finish_ns")
    for position, record in enumerate(records):
        assert bool(table.known("finish_ns")[position]) == (
            record.finish_ns is not None
        )
        if record.finish_ns is not None:
            assert finish[position] == record.finish_ns
        assert table.column("preemptions")[position] == record.preemptions
        assert table.odd("rejected").get(position) == record.rejected
        assert table.prompt_tokens()[position] == record.request.prompt_tokens


def test_a_record_under_way_is_the_object_itself() -> None:
    """What happens to it later is seen, also in columns; after closing it is not."""
    request = Request(id=0, arrival_ns=0, prompt_tokens=3, output_tokens=2)
    record = RequestRecord(request=request, arrival_ns=0, runs=[])
    table = RecordTable([request])
    table.open(record)
    record.preemptions = 2
    assert table[0] is record
    assert table.column("preemptions")[0] == 2
    table.close(record)
    record.preemptions = 3
    assert table[0].preemptions == 2


def test_unequal_and_unlike() -> None:
    """Another length, another record, another type."""
    request = Request(id=0, arrival_ns=0, prompt_tokens=3, output_tokens=2)
    record = RequestRecord(request=request, arrival_ns=0, runs=[])
    table = RecordTable.of([record])
    assert table != []
    assert table != [RequestRecord(request=request, arrival_ns=1, runs=[])]
    assert table != 3


@given(records=_records())
def test_latencies_of_a_table_are_those_of_a_list(
    records: list[RequestRecord],
) -> None:
    """TTFT and E2E by hand, over the finished requests that ran on a replica."""
    for record in records:
        record.runs, record.replica = [], 0
        if record.first_token_ns is None:
            record.first_token_ns = record.arrival_ns
    sample = latency_sample(RecordTable.of(records), [[]])
    finished = [r for r in records if r.finish_ns is not None]
    ttft_ns = [(r.first_token_ns or 0) - r.arrival_ns for r in finished]
    assert sample.ttft_ns.tolist() == ttft_ns
    assert sample.e2el_ns.tolist() == [
        (r.finish_ns or 0) - r.arrival_ns for r in finished
    ]
