"""Building packs: reproducible, and true to wheels written by the test itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calibration import pack_format
from calibration.build_pack import build, main
from calibration.pack_sources import SHIPPED
from calibration.tables import load_tables
from sim.errors import ConfigError
from tests.calibration.parquet import use_parquet
from tests.calibration.tiny_wheels import CORE_WHEEL, LEGACY_WHEEL, write_wheels


@pytest.fixture(autouse=True)
def _parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    use_parquet(monkeypatch)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs of tiny wheels, built once; the wheels lie beside them."""
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        use_parquet(patch)
        build(*write_wheels(folder), folder)
    return folder


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the packs of vLLM on two GPUs only, which is quick."""
    chosen = [c for c in SHIPPED if c.pack in {"h100_sxm", "a100_sxm"}]
    assert len(chosen) == 2
    monkeypatch.setattr("calibration.build_pack.SHIPPED", chosen)


@pytest.mark.long
def test_the_same_wheels_give_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in packed.iterdir() if path.suffix != ".whl")
    assert names == sorted([*(f"{c.pack}.npz" for c in SHIPPED), "provenance.json"])
    build(packed / CORE_WHEEL, packed / LEGACY_WHEEL, tmp_path)
    for name in names:
        assert (packed / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.long
def test_what_is_packed_is_what_the_wheel_says(packed: Path) -> None:
    """Filters, the median of repeats, ms to ns, elements to bytes, renamed words."""
    tables = load_tables("h100_sxm", packed)
    gemm = tables.select("gemm", dtype="bfloat16", n=64, k=32)
    assert gemm["m"].tolist() == [1, 2]
    assert gemm["latency_ns"].tolist() == [2000, 3000]
    assert set(tables.columns("gemm")["dtype"]) == {"bfloat16"}
    prefill = tables.columns("prefill_attention")
    assert {name: column.tolist() for name, column in prefill.items()} == {
        "kv_dtype": ["fp8"],
        "num_heads": [4],
        "num_key_value_heads": [1],
        "head_dim": [128],
        "window_size": [0],
        "batch_size": [2],
        "isl": [16],
        "latency_ns": [12350],
    }
    assert tables.select("decode_attention", window_size=0)["step"].tolist() == [7]
    assert tables.columns("moe")["dtype"].tolist() == ["bfloat16", "mxfp4"]
    assert tables.columns("moe_fp8")["dtype"].tolist() == ["fp8"]
    assert tables.columns("moe_untuned")["dtype"].tolist() == [
        *("bfloat16", "fp8", "mxfp4")
    ]
    assert tables.columns("moe_deepseek")["dtype"].tolist() == ["fp8"]
    assert tables.columns("moe_deepseek")["hidden_size"].tolist() == [7168]
    assert tables.columns("gemm_block")["latency_ns"].tolist() == [4000]
    graph = tables.select("custom_allreduce", backend="graph", num_gpus=2)
    assert graph["message_size"].tolist() == [256, 512]
    assert tables.columns("nccl")["message_size"].tolist() == [512]


def test_a_pack_of_another_framework_has_its_own_rows(packed: Path) -> None:
    """SGLang's fp8 experts are the block-scaled ones; tables that are absent are not
    in the pack."""
    tables = load_tables("h100_sxm", packed, "sglang")
    assert (tables.pack, tables.framework) == ("h100_sxm.sglang", "sglang")
    assert tables.columns("moe")["dtype"].tolist() == ["bfloat16", "mxfp4"]
    assert not {"mla_prefill", "mla_bmm", "moe_untuned"} & set(tables.names)
    backends = tables.columns("custom_allreduce")["backend"].tolist()
    assert backends == ["eager", "eager", "graph", "graph"]


def test_phases_of_one_row_become_rows(packed: Path) -> None:
    """DeepEP: transmission and notification add up, us to ns; only 20 SMs."""
    tables = load_tables("h100_sxm", packed, "deepep")
    for table, nodes, times in (
        ("deepep_normal", 1, [31_000, 25_000]),
        ("deepep_normal_nodes", 2, [31_000, 25_000]),
        ("deepep_low_latency", 1, [11_000, 10_000]),
    ):
        columns = tables.columns(table)
        assert columns["phase"].tolist() == ["combine", "dispatch"]
        assert columns["num_nodes"].tolist() == [nodes, nodes]
        assert columns["num_tokens"].tolist() == [4, 4]
        assert columns["latency_ns"].tolist() == times


def test_all_reduce_of_tensorrt_llm_is_of_graphs(packed: Path) -> None:
    """Its table does not name the launch; fp8 experts are there in both kinds."""
    tables = load_tables("b200_sxm", packed, "trtllm")
    columns = tables.columns("custom_allreduce")
    assert columns["backend"].tolist() == ["graph", "graph"]
    assert columns["message_size"].tolist() == [256, 512]
    assert tables.columns("moe")["dtype"].tolist() == ["bfloat16", "fp8", "mxfp4"]
    assert tables.version == "trtllm 1.3.0rc20"


def test_provenance_counts_and_hashes(packed: Path) -> None:
    core = packed / CORE_WHEEL
    provenance = json.loads((packed / "provenance.json").read_text())
    assert provenance["schema"] == "calibration/2"
    entry = provenance["packs"]["h100_sxm"]["tables"]["gemm"]
    assert (entry["source_rows"], entry["rows"]) == (9, 2)
    assert entry["wheel"] == CORE_WHEEL
    assert entry["wheel_sha256"] == pack_format.sha256(core.read_bytes())
    with zipfile.ZipFile(core) as archive:
        member = archive.read(entry["member"])
    assert entry["member_sha256"] == pack_format.sha256(member)
    assert "2 repeated measurements merged by the median" in entry["modified"][2]
    assert str(packed) not in json.dumps(provenance)


@pytest.mark.usefixtures("few")
def test_a_table_without_windows_has_full_attention(tmp_path: Path) -> None:
    """The older A100 attention tables lack the column."""

    def without_window(table: str, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.drop(columns="window_size") if "attention" in table else frame

    build(*write_wheels(tmp_path, without_window), tmp_path)
    columns = load_tables("a100_sxm", tmp_path).columns("decode_attention")
    assert columns["window_size"].tolist() == [0]


def test_a_table_with_no_usable_rows_is_refused(tmp_path: Path) -> None:
    def no_latency(_table: str, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(latency=-1.0)

    wheels = write_wheels(tmp_path, no_latency)
    with pytest.raises(ConfigError, match="no rows for table 'prefill_attention'"):
        build(*wheels, tmp_path)
    assert not list(tmp_path.glob("*.npz"))


def test_a_wrong_wheel_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another package, another version, no file, no zip: one line and exit 2."""
    core, legacy = tmp_path / CORE_WHEEL, tmp_path / LEGACY_WHEEL
    core.write_bytes(b"not a zip file")
    for given, message in (
        (legacy, "not a wheel of aiconfigurator-core"),
        (tmp_path / "aiconfigurator_core-0.11.0-any.whl", "allowed: .*core-0.12.0-"),
        (core, "cannot read this wheel"),
        (tmp_path / "none" / CORE_WHEEL, "No such file"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(given, legacy, tmp_path)
        code = main(["--core", str(given), "--legacy", str(legacy)])
        assert (code, capsys.readouterr().err.count("\n")) == (2, 1)


def test_an_empty_wheel_is_refused(tmp_path: Path) -> None:
    wheels = tmp_path / CORE_WHEEL, tmp_path / LEGACY_WHEEL
    for wheel in wheels:
        zipfile.ZipFile(wheel, "w").close()
    with pytest.raises(ConfigError, match=r"cannot read .*context_attention_perf"):
        build(*wheels, tmp_path)


@pytest.mark.usefixtures("few")
def test_the_command_line_prints_the_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core, legacy = write_wheels(tmp_path)
    arguments = ["--core", str(core), "--legacy", str(legacy), "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "h100_sxm.npz: 17 rows" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--core", "a"], ["--download", "--core=a"]])
def test_the_command_line_needs_wheels_or_a_download(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "--download" in capsys.readouterr().err


def test_rounding_keeps_four_digits() -> None:
    """The error is at most 0.05 %, and below 1 us half a nanosecond."""
    latency_ms = np.array([0.0009994, 0.0012344, 0.01234449, 0.0123451, 1029.76484])
    assert pack_format.rounded_ns(latency_ms).tolist() == [
        *(999, 1234, 12340, 12350),
        1_030_000_000,
    ]
    many_ms = np.geomspace(1e-3, 1e3, 10_001)
    error = np.abs(pack_format.rounded_ns(many_ms) / (many_ms * 1e6) - 1)
    assert error.max() <= 5e-4


def test_object_arrays_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        pack_format.npz_bytes({"x": np.array([object()])})


@pytest.mark.long
@pytest.mark.usefixtures("few")
def test_downloaded_wheels_give_the_same_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip is asked for the pinned versions and no dependency; its wheels are packed."""
    made = write_wheels(tmp_path)
    asked: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        folder = Path(command[command.index("--dest") + 1])
        package = command[-1].partition("==")[0].replace("-", "_")
        for wheel in made:
            if wheel.name.startswith(f"{package}-"):
                shutil.copy(wheel, folder)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("calibration.wheels.subprocess.run", pip)
    out = tmp_path / "downloaded"
    out.mkdir()
    assert main(["--download", "--out", str(out)]) == 0
    assert [words[-1] for words in asked] == [
        *("aiconfigurator-core==0.12.0", "aiconfigurator==0.10.0")
    ]
    assert all("--no-deps" in words for words in asked)
    given = tmp_path / "given"
    given.mkdir()
    build(*made, given)
    names = {path.name for path in given.iterdir()}
    assert names == {"a100_sxm.npz", "h100_sxm.npz", "provenance.json"}
    for name in names:
        assert (out / name).read_bytes() == (given / name).read_bytes()


def test_a_failed_download_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "calibration.wheels.subprocess.run",
        lambda command, **_: subprocess.CompletedProcess(command, 1),
    )
    assert main(["--download", "--out", str(tmp_path)]) == 2
    assert "could not download aiconfigurator-core" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
