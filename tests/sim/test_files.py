"""Files are whole or absent, and their bytes depend on the data alone."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import stat
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import ConfigError
from sim.files import (
    write_atomic,
    write_csv_atomic,
    write_csv_gz_atomic,
    write_json_atomic,
)
from sim.table import Table

FRAME = pd.DataFrame(
    {"id": [0, 1], "ttft_ms": [0.1 + 0.2, math.nan], "note": ["a,b", "é"]}
)
CSV = 'id,ttft_ms,note\n0,0.30000000000000004,"a,b"\n1,,é\n'.encode()


def test_makes_folders_and_replaces(tmp_path: Path) -> None:
    """The new content is there in full and nothing else is."""
    path = tmp_path / "a" / "b" / "out.bin"
    write_atomic(path, b"old, and longer")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["out.bin"]


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    """What open() would give, not the 0600 of a temporary file."""
    write_atomic(tmp_path / "ours", b"")
    (tmp_path / "usual").touch()
    modes = {stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("ours", "usual")}
    assert len(modes) == 1


def test_the_longest_file_name_works(tmp_path: Path) -> None:
    """The temporary file's name is not built from it."""
    path = tmp_path / ("x" * 255)
    write_atomic(path, b"1")
    assert path.read_bytes() == b"1"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device")])
def test_a_failed_write_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, failure: OSError
) -> None:
    """And no litter; the error is one line."""
    path = tmp_path / "out.json"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ConfigError) as caught:
        write_atomic(path, b"new")
    assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.json"]


def test_an_interrupt_leaves_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle passes through."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "out", b"new")
    assert os.listdir(tmp_path) == []


def test_data_reaches_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File flushed, renamed, folder flushed, in this order."""
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("fsync folder" if is_folder else "fsync file")
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        assert source.read_bytes() == b"new"
        assert source.parent == target.parent
        calls.append("replace")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomic(tmp_path / "out", b"new")
    assert calls == ["fsync file", "replace", "fsync folder"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_file_system_may_lack_folder_flushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """EINVAL says so; an input/output error is told."""
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EINVAL:
        write_atomic(tmp_path / "out", b"new")
        assert (tmp_path / "out").read_bytes() == b"new"
    else:
        with pytest.raises(ConfigError, match="Input/output error"):
            write_atomic(tmp_path / "out", b"new")


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder in the way, a file for a folder, an impossible name."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name, reason in (
        ("folder", "Is a directory"),
        ("file/out", "File exists|Not a directory"),
        ("x" * 256, "File name too long"),
        ("a\0b", "null byte"),
        ("two\nlines/" + "x" * 256, "File name too long"),
    ):
        with pytest.raises(
            ConfigError, match=f": cannot be written: .*({reason})"
        ) as e:
            write_atomic(tmp_path / name, b"")
        assert str(e.value).isprintable()


def test_json_keeps_order_and_has_no_nan(tmp_path: Path) -> None:
    """Hand-written bytes: indented, NaN and infinities null, NumPy plain."""
    path = tmp_path / "r.json"
    obj = {
        "b": np.float64(1.5),
        "a": (np.int64(2), math.nan, -math.inf),
        "c": {"x": np.array([1.0, math.nan]), "y": np.bool_(True)},
        "é": "\ud800",
    }
    write_json_atomic(path, obj)
    assert path.read_bytes() == (
        b'{\n  "b": 1.5,\n  "a": [\n    2,\n    null,\n    null\n  ],\n'
        b'  "c": {\n    "x": [\n      1.0,\n      null\n    ],\n    "y": true\n  },\n'
        b'  "\\u00e9": "\\ud800"\n}\n'
    )


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(deadline=None)  # the disk sets the pace
@given(JSON)
def test_json_reads_back(tmp_path_factory: pytest.TempPathFactory, obj: object) -> None:
    """Whatever JSON can say."""
    path = tmp_path_factory.getbasetemp() / "any.json"
    write_json_atomic(path, obj)
    assert json.loads(path.read_bytes()) == obj


def test_csv_is_plain_and_exact(tmp_path: Path) -> None:
    """Hand-written bytes: no index, shortest exact floats, empty for NaN."""
    write_csv_atomic(tmp_path / "f.csv", FRAME)
    assert (tmp_path / "f.csv").read_bytes() == CSV


def test_gzip_holds_the_csv_and_nothing_of_now(tmp_path: Path) -> None:
    """RFC 1952: flags 0 (no name), time 0, level hint 0, system 255 (unknown)."""
    path = tmp_path / "f.csv.gz"
    write_csv_gz_atomic(path, Table({"k": np.arange(5000) ** 2 % 9973}))
    data = path.read_bytes()
    assert data[:10] == bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255])
    csv = "k\n" + "".join(f"{k * k % 9973}\n" for k in range(5000))
    assert gzip.decompress(data) == csv.encode()
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    assert data[10:-8] == deflate.compress(csv.encode()) + deflate.flush()


def test_same_table_same_bytes_under_any_name(tmp_path: Path) -> None:
    """Two files written at two times under two names are one."""
    columns = {str(name): column.to_numpy() for name, column in FRAME.items()}
    write_csv_gz_atomic(tmp_path / "a.csv.gz", Table(columns))
    os.utime(tmp_path / "a.csv.gz", (1, 1))
    write_csv_gz_atomic(tmp_path / "sub" / "b.csv.gz", Table(dict(columns)))
    first, second = (tmp_path / "a.csv.gz", tmp_path / "sub" / "b.csv.gz")
    assert first.read_bytes() == second.read_bytes()
