"""Every reader against what is no file at all, and against archives that are bombs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import socket
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calibration.anchor_file import read_anchor
from calibration.hf_config import load_hf_config
from calibration.import_csv import import_csv
from calibration.kernels.roofline_file import roofline_file, rooflines_document
from calibration.pack_archive import MAX_ROWS, MAX_UNPACKED_BYTES, PackArchive
from calibration.pack_set import read_provenance
from calibration.profiler.journal import Journal
from calibration.tables import load_tables
from calibration.wheels import open_wheel
from sim.anchor import read_steps
from sim.cli import main
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.input_csv import MAX_BLANK_LINES, MAX_ROW_CHARACTERS, MAX_ROW_LINES
from sim.replay import load_replay
from tests.fuzz import samples
from tests.fuzz.limits import limited
from workloads.request_logs import read_request_log
from workloads.routing.importers import read_routing
from workloads.traces import read_trace

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs mkfifo")
WHEEL = "aiconfigurator_core-0.12.0-py3-none-any.whl"

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "config.toml": ("c.toml", load_config),
    "config.json": ("c.json", load_config),
    "trace": ("t.csv", lambda path: read_trace(str(path))),
    "packed trace": ("t.csv.gz", lambda path: read_trace(str(path))),
    "mooncake": ("t.jsonl", lambda path: read_trace(str(path))),
    "packed mooncake": ("t.jsonl.gz", lambda path: read_trace(str(path))),
    "request log": ("r.csv", read_request_log),
    "packed request log": ("r.csv.gz", read_request_log),
    "replay": ("r.csv", lambda path: load_replay(path, ["seed=1"])),
    "steps": ("s.csv", read_steps),
    "kernels": ("k.csv", lambda path: import_csv(path, "h100_sxm", "vllm")),
    "model": ("m.json", load_hf_config),
    "anchor": ("a.toml", read_anchor),
    "provenance": ("provenance.json", lambda path: read_provenance(path.parent)),
    "rooflines": (
        "moe_roofline.json",
        lambda path: rooflines_document(path.parent / "moe_roofline.json"),
    ),
    "pack": ("h100_sxm.npz", lambda path: load_tables("h100_sxm", path.parent)),
    "routing.json": ("r.json", read_routing),
    "routing.csv": ("r.csv", read_routing),
    "routing.npz": ("r.npz", read_routing),
    "routing.log": ("r.log", read_routing),
    "wheel": (WHEEL, lambda path: open_wheel(path, "aiconfigurator-core")),
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def terminal(path: Path) -> None:
    path.symlink_to("/dev/null")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def to_fifo(path: Path) -> None:
    os.mkfifo(path.parent / "pipe")
    path.symlink_to("pipe")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def blank(path: Path) -> None:
    path.write_bytes(b"\n" * 3_000_000)


def one_line(path: Path) -> None:
    path.write_bytes(b"1" * 30_000_000)


def nothing(path: Path) -> None:
    path.write_bytes(b"")


KINDS = (
    *(fifo, folder, device, terminal, loop, dangling, to_fifo, listening, sparse),
    *(blank, one_line, nothing),
)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_no_reader_waits_fills_memory_or_crashes(
    reader: str,
    make: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line within a second and 200 MB, whatever stands where the file should."""
    monkeypatch.chdir(tmp_path)
    name, read = READERS[reader]
    if (reader, make) == ("config.toml", nothing):
        pytest.skip("an empty TOML file is a whole configuration")
    if reader == "pack":
        (tmp_path / "provenance.json").write_bytes(
            samples.calibration_set()["provenance.json"]
        )
    make(tmp_path / name)
    if reader == "model" and make is folder:
        (tmp_path / name / "config.json").symlink_to("/dev/zero")
    with limited(), pytest.raises(ConfigError) as refused:
        read(tmp_path / name)
    message = str(refused.value)
    assert message.isprintable()
    assert name.partition(".")[0] in message
    assert len(message) < len(str(tmp_path)) + 400


@pytest.mark.parametrize("reader", [r for r in READERS if r not in {"pack", "wheel"}])
@pytest.mark.parametrize("name", ["a\nb", "a\0b", "n" * 300, "\udcff\u202e", "'; \"`"])
def test_any_name_is_escaped_in_the_message(
    reader: str, name: str, tmp_path: Path
) -> None:
    """Line ends, NUL, names that are too long or no UTF-8: still one line."""
    if reader in {"provenance", "rooflines"}:
        path = tmp_path / name / READERS[reader][0]
    else:
        path = tmp_path / f"{name}.{READERS[reader][0].partition('.')[2]}"
    with limited(), pytest.raises(ConfigError) as refused:
        READERS[reader][1](path)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("chunk", [b"\0", b"\n", b"1,", b'"\n",', b" ", b"\r"])
@pytest.mark.parametrize("header", [b"", samples.TRACE, samples.LLM_D])
def test_a_packed_bomb_is_refused(chunk: bytes, header: bytes, tmp_path: Path) -> None:
    """200 MB that pack to 200 KB: of nothing, of blank lines, of one endless row."""
    path = tmp_path / "bomb.csv.gz"
    member = gzip.compress(chunk * (1_000_000 // len(chunk)))
    path.write_bytes(gzip.compress(header) + member * 200)
    for read in (read_request_log, lambda p: read_trace(str(p))):
        with limited(), pytest.raises(ConfigError) as refused:
            read(path)
        assert str(refused.value).isprintable()


def test_rows_and_gaps_may_be_as_long_as_stated(tmp_path: Path) -> None:
    """The limits are limits: one less is read."""
    path = tmp_path / "t.csv"
    head = "num_prefill_tokens,num_decode_tokens,note\n"
    note = "x" * 100_000
    path.write_text(head + f"1,1,{note}\n" * 30 + "\n" * MAX_BLANK_LINES + "2,2,\n")
    assert read_trace(str(path)).prompt_tokens.size == 31
    path.write_text(head + "\n" * (MAX_BLANK_LINES + 1) + "2,2,\n")
    with pytest.raises(ConfigError, match=f"over {MAX_BLANK_LINES} blank lines"):
        read_trace(str(path))
    path.write_text(head + "1,1," + '"y",' * (MAX_ROW_CHARACTERS // 4))
    with pytest.raises(ConfigError, match=f"over {MAX_ROW_CHARACTERS} characters"):
        read_trace(str(path))
    long_note = "x\n" * (MAX_ROW_LINES - 1)
    path.write_text(head + f'1,1,"{long_note}"\n' * 2)
    assert read_trace(str(path)).prompt_tokens.size == 2
    path.write_text(head + f'1,1,"{long_note}\n"\n')
    with pytest.raises(ConfigError, match=f"over {MAX_ROW_LINES} lines"):
        read_trace(str(path))


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed_file:
        for name, content in members.items():
            packed_file.writestr(name, content)
    return buffer.getvalue()


def npy(shape: str, dtype: str = "<u2", body: bytes = b"") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    padded = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + body


HOSTILE_MEMBERS = {
    "claims 10**12 rows": npy("(1000000000000,)"),
    "is longer than it says": npy("(1,)", body=b"\0" * 100),
    "is shorter than it says": npy("(9,)", body=b"\0\0"),
    "has two dimensions": npy("(1, 1)", body=b"\0\0"),
    "has a negative length": npy("(-1,)"),
    "is pickled": npy("(1,)", "|O", b"\x80\x04N."),
    "holds floats": npy("(1,)", "<f8", bytes(8)),
    "holds long words": npy("(1,)", "<U999", bytes(999 * 4)),
    "holds empty words": npy("(1,)", "<U0"),
    "has a header of code": npy("__import__('os').system('true')"),
    "has a deep header": npy("(" * 400),
    "has a minus too many": npy("-" * 450 + "1"),
    "has too many rows": npy(f"({MAX_ROWS + 1},)", "|u1", bytes(MAX_ROWS + 1)),
    "is of another version": npy("(1,)", body=b"\0\0").replace(b"Y\x01", b"Y\x03"),
    "is no array": b"not an array",
    "is empty": b"",
}


@pytest.mark.parametrize("member", HOSTILE_MEMBERS)
def test_a_hostile_member_is_refused(member: str) -> None:
    """Nothing is allocated for a claim, unpickled or evaluated."""
    content = archive({"gemm/m.npy": HOSTILE_MEMBERS[member]})
    with limited():
        opened = PackArchive(content, "x.npz")
        for read in (opened.integers, opened.words):
            with pytest.raises(ConfigError, match=r"^x\.npz: gemm/m: "):
                read("gemm/m")


def test_a_pack_that_unpacks_to_too_much_is_refused_before_it_does() -> None:
    """17 MB of zeros pack to 17 KB."""
    content = archive({"gemm/m.npy": bytes(MAX_UNPACKED_BYTES + 1)})
    assert len(content) < 100_000
    with limited(), pytest.raises(ConfigError, match="bytes unpacked"):
        PackArchive(content, "x.npz")


def test_a_member_that_lies_about_its_size_is_refused() -> None:
    """The directory says 200 bytes, the data hold 50 MB: no more than 200 are read."""
    content = bytearray(archive({"gemm/m.npy": npy("(9,)") + bytes(50_000_000)}))
    size = len(npy("(9,)")) + 50_000_000
    for place in range(len(content) - 4):
        if content[place : place + 4] == size.to_bytes(4, "little"):
            content[place : place + 4] = (200).to_bytes(4, "little")
    with limited(), pytest.raises(ConfigError, match=r"x\.npz: gemm/m: "):
        PackArchive(bytes(content), "x.npz").integers("gemm/m")


@pytest.mark.parametrize("flag", [b"\x01\x00", b"\x00\x00"])
def test_an_encrypted_or_oddly_packed_member_is_refused(flag: bytes) -> None:
    """Neither has a plain reader."""
    content = bytearray(archive({"gemm/m.npy": npy("(1,)", body=b"\0\0")}))
    place = content.index(b"PK\x01\x02")
    content[place + 8 : place + 10] = flag
    content[place + 10 : place + 12] = (97).to_bytes(2, "little")
    with pytest.raises(ConfigError, match=r"x\.npz"):
        PackArchive(bytes(content), "x.npz").integers("gemm/m")


def test_a_pack_outside_its_folder_is_refused(tmp_path: Path) -> None:
    """By a path, not by a link: links are the user's own."""
    files = samples.calibration_set()
    document = json.loads(files["provenance.json"])
    (tmp_path / "set").mkdir()
    (tmp_path / "h100_sxm.npz").write_bytes(files["h100_sxm.npz"])
    place = tmp_path / "set" / "provenance.json"
    for name in ("../h100_sxm.npz", str(tmp_path / "h100_sxm.npz"), "..", "a/b.npz"):
        document["packs"]["h100_sxm"]["file"] = name
        place.write_text(json.dumps(document))
        with pytest.raises(ConfigError, match="damaged list of packs"):
            load_tables("h100_sxm", tmp_path / "set")
    document["packs"]["h100_sxm"]["file"] = "h100_sxm.npz"
    place.write_text(json.dumps(document))
    (tmp_path / "set" / "h100_sxm.npz").symlink_to(tmp_path / "h100_sxm.npz")
    assert load_tables("h100_sxm", tmp_path / "set").names
    assert roofline_file(tmp_path / "set").name == "moe_roofline.json"


def test_rows_out_of_order_are_refused(tmp_path: Path) -> None:
    """Kernels are looked up by bisection, which would go wrong in silence."""
    for name, content in samples.calibration_set().items():
        (tmp_path / name).write_bytes(content)
    with np.load(tmp_path / "h100_sxm.npz", allow_pickle=False) as packed_file:
        members = {f"{name}.npy": packed_file[name] for name in packed_file.files}
    members["gemm/m.npy"] = members["gemm/m.npy"][::-1].copy()
    content = archive({name: _saved(array) for name, array in members.items()})
    (tmp_path / "h100_sxm.npz").write_bytes(content)
    document = json.loads((tmp_path / "provenance.json").read_text())
    document["packs"]["h100_sxm"]["sha256"] = hashlib.sha256(content).hexdigest()
    (tmp_path / "provenance.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"gemm: 6 rows; .* in ascending order"):
        load_tables("h100_sxm", tmp_path)


def _saved(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def test_a_session_refuses_a_pipe_for_its_journal(tmp_path: Path) -> None:
    """It is opened for writing too, which must not wait either."""
    os.mkfifo(tmp_path / "journal")
    with limited(), pytest.raises(ConfigError, match="journal: "):
        Journal(tmp_path / "journal", {}, "2026-01-01", writable=True)
    with limited(), pytest.raises(ConfigError, match="journal: "):
        Journal(tmp_path / "journal", {}, "2026-01-01", writable=False)


COMMANDS = (
    ("run", "{fifo}.toml"),
    ("run", "--set", "workload.path={fifo}.csv"),
    ("run", "--set", "model.name={fifo}.json"),
    ("run", "--set", "calibration.profile={fifo}.toml"),
    ("run", "--set", "calibration.data_dir={fifo}.toml"),
    ("compare", "{fifo}.toml"),
    ("validate", "--replay", "{fifo}.csv", "--set", "seed=1"),
    ("calibrate", "import", "{fifo}.csv"),
    ("calibrate", "import", "{wheel}"),
    ("calibrate", "anchor", "{fifo}.csv"),
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_ends_with_one_line_and_exit_2(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Nothing is written, nobody waits for the pipe."""
    monkeypatch.chdir(tmp_path)
    for suffix in ("toml", "csv", "json"):
        os.mkfifo(tmp_path / f"fifo.{suffix}")
    (tmp_path / WHEEL).write_bytes(b"PK no wheel")
    before = sorted(tmp_path.iterdir())
    filled = [w.format(fifo=tmp_path / "fifo", wheel=tmp_path / WHEEL) for w in words]
    with (
        limited(cpu_s=10.0, memory_bytes=2_000_000_000),
        pytest.raises(SystemExit) as ended,
    ):
        main(filled)
    out, err = capfd.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert sorted(tmp_path.iterdir()) == before
