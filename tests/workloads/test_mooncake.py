"""The reader of traces with ``hash_ids``: what is shared, and what it refuses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cli import main
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.runner import run_config
from tests.cases import cases
from workloads.spec import WorkloadSpec
from workloads.traces import Trace, read_trace
from workloads.workload import build_workload


def row(timestamp: Any, tokens: Any, hashes: Any, **more: Any) -> dict[str, Any]:
    return {
        "timestamp": timestamp,
        "input_length": tokens,
        "output_length": 3,
        "hash_ids": hashes,
        **more,
    }


ROWS = (
    row(0, 1000, [5, 6], note="first"),
    row(27.5, 1500, [5, 6, 9]),
    row(27.5, 1024, [5, 6]),
    row(3000, 1000, [5, 6]),
    row(3000, 600, [6, 5]),
)


def write(folder: Path, *rows: object, name: str = "trace.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(each) for each in rows), encoding="utf-8")
    return path


def read(folder: Path, *rows: object) -> Trace:
    return read_trace(str(write(folder, *rows)))


def test_rows_become_nanoseconds_tokens_and_prefixes(tmp_path: Path) -> None:
    """A last block of other length, or after another one, is another block."""
    trace = read(tmp_path, *ROWS)
    assert trace.arrival_ns is not None
    assert trace.arrival_ns.tolist() == [0, 27_500_000, 27_500_000, *[3 * 10**9] * 2]
    assert trace.prompt_tokens.tolist() == [1000, 1500, 1024, 1000, 600]
    assert trace.output_tokens.tolist() == [3] * 5
    assert trace.prefixes is not None
    ends = [prefix.ends for prefix in trace.prefixes]
    assert ends == [
        (512, 1000),
        (512, 1024, 1500),
        (512, 1024),
        (512, 1000),
        (512, 600),
    ]
    one, two, three, four, five = (prefix.segments for prefix in trace.prefixes)
    assert one == four
    assert one[0] == two[0] == three[0]
    assert one[1] != two[1] == three[1]
    assert len({*one, *two, *five}) == 6


def test_bom_line_ends_blank_lines_and_gzip_change_nothing(tmp_path: Path) -> None:
    plain = read(tmp_path, *ROWS)
    text = b"\xef\xbb\xbf\r\n" + b"\r\n\r\n".join(
        json.dumps(each).encode() for each in ROWS
    )
    path = tmp_path / "TRACE.JSONL.gz"
    path.write_bytes(gzip.compress(text))
    packed = read_trace(str(path))
    assert packed.prefixes == plain.prefixes
    assert (packed.prompt_tokens == plain.prompt_tokens).all()


BAD = {
    "no time": ({"input_length": 1}, "timestamp: 'missing'"),
    "time as text": (row("0", 5, [1]), "timestamp: '0'; allowed: milliseconds in 0.."),
    "time true": (row(True, 5, [1]), "timestamp: True"),
    "before 0": (row(-1, 5, [1]), "timestamp: -1"),
    "too late": (row(1e13, 5, [1]), "timestamp: 1000000"),
    "backwards": (row(9, 5, [1]), "timestamp: 9; allowed: sorted times, here >= 10"),
    "no tokens": (row(10, 0, []), "input_length: 0; allowed: an integer in 1..1000"),
    "half a token": (row(10, 1.5, [1]), "input_length: 1.5"),
    "too many": (row(10, 10_000_001, [1]), "input_length: 10000001"),
    "no output": (row(10, 5, [1], output_length=0), "output_length: 0"),
    "no list": (row(10, 5, 1), "hash_ids: 1; allowed: a list of 1"),
    "too few": (row(10, 513, [1]), "hash_ids: [1]; allowed: a list of 2, one for each"),
    "too many hashes": (row(10, 512, [1, 2]), "hash_ids: [1, 2]; allowed: a list of 1"),
    "hash as text": (row(10, 5, ["a"]), "hash_ids: 'a'; allowed: integers in 0.."),
    "negative hash": (row(10, 5, [-1]), "hash_ids: -1"),
    "hash null": (row(10, 5, [None]), "hash_ids: None"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_named(tmp_path: Path, name: str) -> None:
    bad, message = BAD[name]
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, row(10, 5, [1]), bad)
    assert f"trace.jsonl:2: {message}" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "rows: 0; allowed: at least 1"),
        (b"[1]\n", "line 1: not valid JSON: must be an object"),
        (b'{"a": NaN}\n', "line 1: "),
        (b"\n\n{", "line 3: not valid JSON"),
        (b'{"a": 1, "a": 2}', "line 1: "),
        (b"[" * 100_000, "line 1: "),
        (b"\xff\n", "not UTF-8 text at byte 0"),
        (b"\n" * 2000, "over 1000 blank lines"),
        (b" " * 2_000_000, "characters follow"),
    ],
)
def test_what_is_no_json_lines_is_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_trace(str(path))
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_the_command_says_so_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, row(0, 513, [1]))
    with pytest.raises(SystemExit) as caught:
        main(["run", "--set", f"workload.path={path}", "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert err.count("\n") == 1
    assert not (tmp_path / "out" / "result.json").exists()


def test_what_is_shared_is_part_of_the_hash(tmp_path: Path) -> None:
    """Two workloads that differ in hash_ids alone."""
    hashes = set()
    for second in ([1, 2], [1, 3]):
        path = write(tmp_path, row(0, 600, [1, 2]), row(0, 600, second))
        hashes.add(build_workload(WorkloadSpec(path=str(path))).sha256)
    assert len(hashes) == 2


@given(
    prompts=st.lists(
        st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=1, max_size=6
    ),
    scheduler=st.sampled_from(("chunked-prefill", "layered-prefill")),
)
@cases(5)
def test_one_at_a_time_all_that_was_seen_is_found(
    prompts: list[list[int]],
    scheduler: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """With room for all, of prompts of whole blocks; the last token is computed."""
    rows, seen, found = [], set(), 0
    for number, path in enumerate(prompts):
        rows.append(row(number * 100_000, 512 * len(path), path))
        ready = [k for k in range(1, len(path) + 1) if tuple(path[:k]) in seen]
        found += 512 * len(ready) - 16 * (len(ready) == len(path))
        seen |= {tuple(path[:k]) for k in range(1, len(path) + 1)}
    file = write(tmp_path_factory.mktemp("trace"), *rows)
    flags: dict[str, object] = {
        "workload.path": str(file),
        "engine.scheduler": scheduler,
        "engine.enable_prefix_caching": True,
    }
    summary = run_config(load_config(None, (), flags)).summary
    assert summary["prefix_cache_hits"] == found
    assert summary["prefix_cache_hit_rate"] == found / summary["total_input_tokens"]
