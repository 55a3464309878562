"""The CSV trace reader: what it accepts, and that it names what it refuses."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import ConfigError
from tests.cases import cases
from workloads.traces import Trace, read_trace

HEADER = "arrived_at,num_prefill_tokens,num_decode_tokens"


def read(folder: Path, content: str | bytes) -> Trace:
    file = folder / "trace.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_trace(str(file))


def test_rows_become_integer_nanoseconds_and_tokens(tmp_path: Path) -> None:
    trace = read(tmp_path, f"{HEADER}\n0.5,100,7\n1.25,1,1\n1.25,10000000,20\n")
    assert trace.arrival_ns is not None
    assert trace.arrival_ns.tolist() == [500_000_000, 1_250_000_000, 1_250_000_000]
    assert trace.prompt_tokens.tolist() == [100, 1, 10_000_000]
    assert trace.output_tokens.tolist() == [7, 1, 20]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + f"{HEADER}\n0,5,6\n1e-3,7,8\n".encode(),
        f"{HEADER}\r\n0,5,6\r\n0.001,7,8\r\n",
        f"{HEADER}\n0,5,6\n\n.001,7,8",
        "num_decode_tokens,note,arrived_at,num_prefill_tokens\n6,é,0,5\n8,,1E-3,7\n",
        f'{HEADER}\n0,"5",6\n0.001,7,"8"\n',
    ],
    ids=["bom", "crlf", "blank line, no end", "other order, extra column", "quotes"],
)
def test_variants_of_the_same_csv_read_alike(
    tmp_path: Path, content: str | bytes
) -> None:
    trace = read(tmp_path, content)
    assert trace.arrival_ns is not None
    assert trace.arrival_ns.tolist() == [0, 1_000_000]
    assert trace.prompt_tokens.tolist() == [5, 7]
    assert trace.output_tokens.tolist() == [6, 8]


def test_a_file_without_arrivals_holds_lengths_only(tmp_path: Path) -> None:
    trace = read(tmp_path, "num_prefill_tokens,num_decode_tokens\n9,3\n")
    assert trace.arrival_ns is None
    assert trace.prompt_tokens.tolist() == [9]


BAD_CELLS = [
    (column, cell)
    for column, cells in {
        0: [
            "nan",
            "inf",
            "-1",
            "",
            "x",
            "1_0",
            " 1",
            "1e10",
            "1e999",
            "1e",
            "٣",
            "0x1",
        ],
        1: [
            "0",
            "-5",
            "",
            "1.0",
            "1e3",
            "nan",
            "10000001",
            "+5",
            "1_0",
            "٣",
            "9" * 999,
        ],
        2: ["0", "-5", "2.5", "10000001"],
    }.items()
    for cell in cells
]


@pytest.mark.parametrize(("column", "cell"), BAD_CELLS)
def test_a_bad_cell_is_named_by_file_line_column_and_value(
    tmp_path: Path, column: int, cell: str
) -> None:
    row = ["5", "10", "20"]
    row[column] = cell
    with pytest.raises(ConfigError) as error:
        read(tmp_path, f"{HEADER}\n1,10,20\n{','.join(row)}\n6,10,20\n")
    message = str(error.value)
    where = f"trace.csv:3: {HEADER.split(',')[column]}: {cell!r}"[:60]
    assert where in message
    assert "; allowed: " in message
    assert "\n" not in message
    assert len(message) < len(str(tmp_path)) + 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"trace.csv:1: num_prefill_tokens: 'missing'"),
        ("arrived_at,num_prefill_tokens\n1,2\n", r":1: num_decode_tokens: 'missing'"),
        (f"{HEADER},arrived_at\n1,2,3,4\n", r":1: arrived_at: 'twice'"),
        (f"{HEADER}\n", r":1: rows: 0; allowed: at least 1"),
        (f"{HEADER}\n1,2\n", r":2: fields: 2; allowed: 3"),
        (f"{HEADER}\n1,2,3,4\n", r":2: fields: 4; allowed: 3"),
        (f"{HEADER}\n2,1,1\n1.5,1,1\n", r":3: arrived_at: '1.5'; allowed: .*>= 2.0"),
        (f'{HEADER}\n1,2,"3\n', r"trace.csv: line 2: unexpected end of data"),
        (f"{HEADER}\n1,2,3\n".encode("utf-16"), r"utf-8.*; allowed: CSV in UTF-8"),
        (f"{HEADER}\n1,2,3\n".encode() + b"\xff", r"utf-8.*; allowed: CSV in UTF-8"),
    ],
)
def test_a_bad_file_is_refused(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, content)


def test_too_many_rows_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workloads.traces.MAX_REQUESTS", 3)
    assert read(tmp_path, f"{HEADER}\n" + "1,1,1\n" * 3).prompt_tokens.size == 3
    with pytest.raises(ConfigError, match=r":5: rows: .*at most 3"):
        read(tmp_path, f"{HEADER}\n" + "1,1,1\n" * 4)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.csv")
    for path in (missing, str(tmp_path), "no\0name"):
        with pytest.raises(ConfigError, match="; allowed: "):
            read_trace(path)


def outcome(folder: Path, content: bytes) -> Trace | str:
    try:
        return read(folder, content)
    except ConfigError as error:
        return str(error)


CELL = st.one_of(st.text(max_size=6), st.integers().map(str), st.floats().map(str))
LINES = st.lists(st.lists(CELL, max_size=4).map(",".join), max_size=5)


@cases(20)
@given(lines=LINES, junk=st.binary(max_size=8))
def test_hostile_bytes_give_a_trace_or_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], junk: bytes
) -> None:
    content = "\n".join([HEADER, "0,1,1", *lines]).encode("utf-8", "replace") + junk
    result = outcome(tmp_path_factory.getbasetemp(), content)
    if isinstance(result, Trace):
        assert result.prompt_tokens.min() >= 1
        assert result.output_tokens.min() >= 1
    else:
        assert "trace.csv" in result
        assert len(result.splitlines()) == 1
