"""The command `calibrate import`: what it writes, prints and refuses."""

from __future__ import annotations

import json
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from calibration.pack_sources import Collection
from calibration.profiler.schema import csv_bytes
from calibration.tables import load_tables
from sim.cli_import import import_command
from sim.errors import ConfigError
from tests.calibration.parquet import use_parquet
from tests.calibration.test_import_csv import ROWS as CSV_ROWS
from tests.calibration.test_import_csv import gemm
from tests.calibration.tiny_wheels import CORE_WHEEL, MOE, ROWS, one_wheel

VLLM = Collection("h100_sxm", "vllm", "0.24.0", "2.29.2", {})


@pytest.fixture(autouse=True)
def _parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    use_parquet(monkeypatch)


def run(source: Path | None, out: Path, **given: Any) -> None:
    options: dict[str, Any] = {
        **{"installed": False, "gpu_name": "h100", "backend": "vllm"},
        **{"version": None, "all_shapes": False, "as_json": True},
    }
    import_command(source, out=out, **{**options, **given})


def wheel(folder: Path) -> Path:
    """With enough MoE rows of one slice to fit a roofline: the work of more tokens."""
    moe = [
        {**MOE, "num_tokens": 2**n, "latency": 0.02 + 1e-5 * 2**n, "distribution": law}
        for n in range(10)
        for law in ("balanced", "power_law_1.01", "power_law_1.2")
    ]
    return one_wheel(folder / CORE_WHEEL, [VLLM], {**ROWS, "moe": moe})


def test_a_wheel_becomes_a_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Packs, rooflines fitted to them, provenance; the tables read back."""
    run(wheel(tmp_path), tmp_path / "set")
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"]["moe"] == 30
    assert any("1 MoE slices" in note for note in printed["notes"])
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        *("h100_sxm.npz", "moe_roofline.json", "provenance.json")
    ]
    fits = json.loads((tmp_path / "set" / "moe_roofline.json").read_text())
    assert list(fits["slices"]) == ["h100_sxm/moe/bfloat16/2048-768-8-128-2-1"]
    tables = load_tables("h100_sxm", tmp_path / "set")
    assert tables.columns("moe")["num_tokens"].size == 30


def test_imports_add_to_a_set(tmp_path: Path) -> None:
    """A second pack leaves the first, and a repeated import gives the same bytes."""
    out, source = tmp_path / "set", wheel(tmp_path)
    run(source, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    mine = tmp_path / "mine.csv"
    mine.write_bytes(csv_bytes(CSV_ROWS))
    run(mine, out, gpu_name="l40s", backend="sglang")
    assert load_tables("h100_sxm", out).names
    assert load_tables("l40s", out, "sglang").columns("gemm")["m"].tolist() == [1, 2, 4]
    (out / "l40s.sglang.npz").unlink()
    (out / "provenance.json").unlink()
    run(source, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_table_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_bytes(csv_bytes([gemm(1, 10_000)]))
    run(mine, tmp_path / "set", as_json=False)
    printed = capsys.readouterr()
    assert "gemm" in printed.out
    assert "calibration.data_dir" in printed.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"installed": True}, "or --installed"),
        ({"backend": "tgi"}, "unknown backend .*allowed: sglang, trtllm, vllm"),
        ({"gpu_name": "h10"}, "unknown GPU"),
        ({"version": "0.24.0"}, "--version: for wheels only"),
    ],
)
def test_bad_options_write_nothing(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_bytes(csv_bytes([gemm(1, 10_000)]))
    with pytest.raises(ConfigError, match=message):
        run(mine, tmp_path / "set", **given)
    assert not (tmp_path / "set").exists()


def test_bad_input_leaves_a_set_as_it_was(tmp_path: Path) -> None:
    out, mine = tmp_path / "set", tmp_path / "mine.csv"
    mine.write_bytes(csv_bytes([gemm(1, 10_000)]))
    run(mine, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    mine.write_bytes(csv_bytes([gemm(1, 10_000), gemm(2, 10)]))
    broken = tmp_path / CORE_WHEEL
    broken.write_bytes(b"PK not a wheel")
    for source in (mine, broken, tmp_path / "none.csv", tmp_path / "other.whl"):
        with pytest.raises(ConfigError):
            run(source, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_damaged_set_is_not_added_to(tmp_path: Path) -> None:
    out, mine = tmp_path / "set", tmp_path / "mine.csv"
    out.mkdir()
    (out / "provenance.json").write_text("{")
    mine.write_bytes(csv_bytes([gemm(1, 10_000)]))
    with pytest.raises(ConfigError, match="not a provenance file"):
        run(mine, out)
    assert [path.name for path in out.iterdir()] == ["provenance.json"]


def test_an_installed_package_is_read_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its files, by the paths of its RECORD; nothing is imported."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel(tmp_path)) as archive:
        archive.extractall(site)
    info = site / "aiconfigurator_core-0.12.0.dist-info"
    (info / "METADATA").write_text("Name: aiconfigurator-core\nVersion: 0.12.0\n")
    monkeypatch.syspath_prepend(str(site))
    run(None, tmp_path / "set", installed=True)
    entry = load_tables("h100_sxm", tmp_path / "set").provenance["gemm"]
    assert entry["wheel"] == "aiconfigurator-core 0.12.0 (installed)"
    assert "aiconfigurator_core" not in sys.modules


def test_a_package_that_is_not_installed_is_said(tmp_path: Path) -> None:
    try:
        metadata.distribution("aiconfigurator-core")
    except metadata.PackageNotFoundError:
        with pytest.raises(ConfigError, match="aiconfigurator-core is not installed"):
            run(None, tmp_path / "set", installed=True)
    else:
        pytest.skip("aiconfigurator-core is installed here")
