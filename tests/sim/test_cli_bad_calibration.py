"""Damaged calibration sets and impossible timings, through the command line.

Each gives one line on stderr and exit code 2, and nothing is written.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.profiler.columns import COLUMNS
from calibration.tables import DATA_DIR
from sim.cli import main

PACK, ROOFLINES, PROVENANCE = "h100_sxm.npz", "moe_roofline.json", "provenance.json"
Change = Callable[[Path], None]


def failure(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """The only line on stderr of a command that ends with 2."""
    before = sorted(Path().iterdir())
    with pytest.raises(SystemExit) as caught:
        main(words)
    out, err = capfd.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sorted(Path().iterdir()) == before
    return err


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data_dir() -> Path:
    folder = Path("set")
    folder.mkdir()
    for name in (PACK, ROOFLINES, PROVENANCE):
        shutil.copy(DATA_DIR / name, folder / name)
    return folder


def signed(folder: Path, content: bytes, *, without: str = "") -> None:
    """Write a pack whose checksum is right, as a mistaken tool would."""
    (folder / PACK).write_bytes(content)
    document = json.loads((folder / PROVENANCE).read_text())
    entry = document["packs"]["h100_sxm"]
    entry["sha256"] = sha256(content).hexdigest()
    entry["tables"].pop(without, None)
    (folder / PROVENANCE).write_text(json.dumps(document))


def repacked(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The pack with other members, its checksum right."""
    with np.load(folder / PACK) as archive:
        members = dict(archive)
    change(members)
    content = io.BytesIO()
    np.savez(content, **members)
    signed(folder, content.getvalue())


def cut(folder: Path) -> bytes:
    return (folder / PACK).read_bytes()[:100_000]


def flipped(folder: Path) -> bytes:
    """A byte in the middle of the compressed data is another."""
    content = bytearray((folder / PACK).read_bytes())
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def missummed(folder: Path) -> bytes:
    """A byte of a column's checksum in the archive's directory is another."""
    content = bytearray((folder / PACK).read_bytes())
    with zipfile.ZipFile(folder / PACK) as archive:
        crc = archive.getinfo("gemm/latency_ns.npy").CRC
    content[content.rindex(crc.to_bytes(4, "little"))] ^= 0xFF
    return bytes(content)


def without_table(table: str) -> Change:
    return lambda folder: signed(folder, (folder / PACK).read_bytes(), without=table)


def members(change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda folder: repacked(folder, change)


def rooflines(change: Callable[[Any], object]) -> Change:
    def changed(folder: Path) -> None:
        fits = json.loads((folder / ROOFLINES).read_text())
        change(fits)
        (folder / ROOFLINES).write_text(json.dumps(fits))

    return changed


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content) and None


DAMAGE: dict[str, tuple[Change, str]] = {
    "truncated": (
        lambda folder: (folder / PACK).write_bytes(cut(folder)) and None,
        "h100_sxm.npz: corrupt: its SHA-256 is not the one in provenance.json",
    ),
    "one byte": (
        lambda folder: (folder / PACK).write_bytes(flipped(folder)) and None,
        "h100_sxm.npz: corrupt: its SHA-256 is not the one in provenance.json",
    ),
    "truncated, signed": (
        lambda folder: signed(folder, cut(folder)),
        "h100_sxm.npz: not a pack",
    ),
    "empty, signed": (lambda folder: signed(folder, b""), "h100_sxm.npz: not a pack"),
    "one byte, signed": (
        lambda folder: signed(folder, missummed(folder)),
        "h100_sxm.npz: gemm/latency_ns: Bad CRC-32",
    ),
    "one byte of the data, signed": (
        lambda folder: signed(folder, flipped(folder)),
        "h100_sxm.npz: gemm/latency_ns: ",
    ),
    "no pack": (lambda folder: (folder / PACK).unlink(), "h100_sxm.npz: cannot read"),
    "no provenance": (
        lambda folder: (folder / PROVENANCE).unlink(),
        "provenance.json: cannot read",
    ),
    "provenance cut": (text(PROVENANCE, '{"schema"'), "not a provenance file"),
    "no times": (
        members(lambda found: found.pop("gemm/latency_ns")),
        "h100_sxm.npz: gemm: columns dtype, k, m, n; allowed: dtype, n, k, m, latency",
    ),
    "times of zero": (
        members(lambda found: found["moe/latency_ns"].fill(0)),
        "h100_sxm.npz: moe/latency_ns: damaged; allowed: positive numbers",
    ),
    "a short column": (
        members(lambda found: found.update({"gemm/m": found["gemm/m"][:-1]})),
        "h100_sxm.npz: gemm/m: damaged; allowed: positive numbers or known words",
    ),
    "pickled objects": (
        members(lambda found: found.update({"gemm/m": np.array([{}], dtype=object)})),
        "h100_sxm.npz: gemm/m: not a one-dimensional .npy file",
    ),
    **{
        f"no {table}": (without_table(table), f'kernel table of h100_sxm "{table}"')
        for table in (
            *("gemm", "moe", "prefill_attention", "decode_attention"),
            *("custom_allreduce", "nccl"),
        )
    },
    "rooflines cut": (text(ROOFLINES, '{"slices": {'), "not a file of MoE rooflines"),
    "rooflines a list": (text(ROOFLINES, "[]"), "not a file of MoE rooflines"),
    "no section": (text(ROOFLINES, "{}"), "moe_roofline.json: slices: damaged"),
    "no slice": (
        text(ROOFLINES, '{"slices": {}, "loads": {}}'),
        "no MoE kernel with bfloat16 weights was profiled",
    ),
    "a slice's key is gone": (
        rooflines(lambda fits: [fit.pop("tile") for fit in fits["slices"].values()]),
        "h100_sxm/moe/bfloat16/2048-768-8-128-2-1: damaged",
    ),
    "a slice has words": (
        rooflines(lambda fits: [f.update(t0_ns="x") for f in fits["slices"].values()]),
        "h100_sxm/moe/bfloat16/2048-768-8-128-2-1: damaged",
    ),
    "a load is gone": (
        rooflines(lambda fits: fits["loads"].pop("128-8-1-128")),
        "moe_roofline.json: loads: 128-8-1-128: damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_set_is_one_line(
    name: str, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage, message = DAMAGE[name]
    damage(data_dir)
    line = failure(capfd, "run", "--set", f"calibration.data_dir={data_dir}")
    assert message in line


HEADER = "table,dtype,n,k,m,latency_ns,kernel_source\n"
ROW = "gemm,bfloat16,64,64,{},{},cublas\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + ROW.format(1, -5), 'line 2: latency_ns = "-5"; allowed'),
        (HEADER + ROW.format(1, "nan"), 'line 2: latency_ns = "nan"; allowed'),
        (HEADER + ROW.format(1, "inf"), 'line 2: latency_ns = "inf"; allowed'),
        (HEADER + ROW.format(1, 0), 'line 2: latency_ns = "0"; allowed'),
        (
            HEADER + ROW.format(1, 1000) + ROW.format(2, 499),
            "gemm/bfloat16/64/64/2: latency_ns = 499: allowed: at least half",
        ),
        (
            HEADER.replace("_ns", "_us") + ROW.format(1, 5),
            'column "latency_us": unknown unit; allowed: latency_ns',
        ),
        (HEADER + ROW.format(1, 5) * 2, "allowed: a kernel once"),
        (HEADER, "no rows"),
        (HEADER + "gemm,bfloat16\n", "2 cells; allowed: 7"),
        ("\x00", "allowed"),
    ],
)
def test_impossible_timings_are_one_line(
    content: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("mine.csv").write_text(content)
    line = failure(capfd, "calibrate", "import", "mine.csv", "--gpu", "h100")
    assert message in line
    assert line.startswith("error: mine.csv: ")


def row(**cells: object) -> str:
    return ",".join(str(cells.get(column, "")) for column in COLUMNS) + "\n"


def attention(table: str, **cells: object) -> str:
    heads = {"num_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    shape = {"kv_dtype": "bfloat16", "window_size": 0, "kernel_source": "x"}
    return row(table=table, **heads, **shape, **cells)


SQUARE = {"table": "gemm", "dtype": "bfloat16", "n": 4096, "k": 4096}
GEMM = "".join(
    row(**SQUARE, m=m, latency_ns=999 + m, kernel_source="x") for m in (1, 64)
)
PREFILL = "".join(
    attention("prefill_attention", batch_size=1, isl=n, prefix=0, latency_ns=999 + n)
    for n in (16, 1024)
)


def decode(batch: int, step: int) -> str:
    keys = {"batch_size": batch, "step": step}
    return attention("decode_attention", **keys, latency_ns=999 + batch + step)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (PREFILL, "kernel table of h100_sxm"),
        (PREFILL + decode(1, 16) + decode(1, 64), "only batch_size = 1 was profiled"),
        (PREFILL + decode(1, 16) + decode(8, 16), "only step = 16 was profiled"),
        (
            PREFILL.replace("128,0,1,", "128,0,2,") + decode(1, 16) + decode(8, 64),
            "no batch_size = 1 was profiled",
        ),
    ],
)
def test_a_set_with_too_few_kernels_is_one_line(
    rows: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Imported, as more may be added; refused by a run that needs them."""
    Path("mine.csv").write_text(",".join(COLUMNS) + "\n" + GEMM + rows)
    with pytest.raises(SystemExit, match="0"):
        main(("calibrate", "import", "mine.csv", "--gpu", "h100", "--out", "set"))
    capfd.readouterr()
    sets = {
        "calibration.data_dir": "set",
        "model.name": "meta-llama/Llama-3.1-8B",
        "parallel.tensor_parallel_size": "1",
    }
    words = (
        word for key, value in sets.items() for word in ("--set", f"{key}={value}")
    )
    assert message in failure(capfd, "run", *words)
