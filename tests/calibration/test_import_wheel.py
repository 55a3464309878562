"""Importing one GPU and framework from a wheel: rows, versions, refusals."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from calibration import pack_format
from calibration.import_wheel import import_wheel, version_key
from calibration.pack_set import write_set
from calibration.pack_sources import Collection
from calibration.table_source import CORE
from calibration.tables import load_tables
from calibration.wheels import Wheel, open_wheel, read_member
from sim.errors import ConfigError
from tests.calibration.parquet import use_parquet
from tests.calibration.tiny_wheels import (
    ATTENTION,
    CORE_WHEEL,
    HEADER,
    MLA_ROWS,
    ROWS,
    one_wheel,
)

OLD = Collection("h100_sxm", "vllm", "0.9.1", "2.29.2", {})
NEW = Collection("h100_sxm", "vllm", "0.24.0", "2.29.2", {})
TRTLLM = Collection("gb300", "trtllm", "1.3.0rc20", None, {})


@pytest.fixture(autouse=True)
def _parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    use_parquet(monkeypatch)


@pytest.fixture
def wheel(tmp_path: Path) -> Wheel:
    """A newest vLLM without its own all-reduce, and TensorRT-LLM on another GPU."""
    path = one_wheel(tmp_path / CORE_WHEEL, [OLD, TRTLLM], ROWS)
    newest = {name: rows for name, rows in ROWS.items() if name != "custom_allreduce"}
    extra = one_wheel(tmp_path / f"x{CORE_WHEEL}", [NEW], newest | MLA_ROWS)
    with zipfile.ZipFile(path, "a") as target, zipfile.ZipFile(extra) as source:
        for name in source.namelist():
            if name not in target.namelist():
                target.writestr(name, source.read(name))
    return open_wheel(path, CORE)


def test_the_newest_version_is_taken_and_gaps_filled_from_older_ones(
    wheel: Wheel, tmp_path: Path
) -> None:
    """And the notes say which tables are older or missing."""
    imported = import_wheel(wheel, "h100_sxm", "vllm")
    assert imported.notes == (
        "custom_allreduce: rows of vllm 0.9.1",
        "not in vllm 0.24.0: moe_block, mla_prefill, mla_decode",
    )
    write_set(tmp_path / "set", [imported.pack])
    tables = load_tables("h100_sxm", tmp_path / "set")
    assert tables.select("gemm", m=1)["latency_ns"].tolist() == [2000]
    module = tables.columns("mla_prefill_module")
    assert module["dtype"].tolist() == ["fp8"]
    assert (module["isl"].tolist(), module["num_heads"].tolist()) == ([16], [16])
    assert tables.columns("mla_decode_module")["step"].tolist() == [8]
    assert tables.columns("mla_bmm")["op_name"].tolist() == ["post", "pre"]
    assert "moe_untuned" not in tables.names


def test_a_version_can_be_chosen(wheel: Wheel) -> None:
    imported = import_wheel(wheel, "h100_sxm", "vllm", "0.9.1")
    versions = {t["framework_version"] for t in imported.pack.tables.values()}
    assert versions == {"0.9.1", "2.29.2", "0.24.0"}  # the last: latent attention


def test_another_gpu_and_framework(wheel: Wheel) -> None:
    imported = import_wheel(wheel, "gb300", "trtllm")
    assert imported.pack.file == "gb300.trtllm.npz"
    assert "custom_allreduce" in imported.notes[0]  # none in its words


def test_every_shape_or_the_catalogue_only(wheel: Wheel) -> None:
    """The tiny table has a hidden size of 3000 that no catalogue model has."""
    few = import_wheel(wheel, "h100_sxm", "vllm").pack.tables["moe"]["rows"]
    every = import_wheel(wheel, "h100_sxm", "vllm", everything=True).pack
    assert (few, every.tables["moe"]["rows"]) == (3, 4)
    assert every.tables["prefill_attention"]["rows"] == 2


def test_the_same_wheel_gives_the_same_bytes(wheel: Wheel) -> None:
    first, second = (import_wheel(wheel, "h100_sxm", "vllm").pack for _ in range(2))
    assert first.content == second.content
    assert first.entry() == second.entry()


@pytest.mark.parametrize(
    ("gpu", "framework", "version", "message"),
    [
        ("h10_sxm", "vllm", None, r"GPU in .*allowed: gb300, h100_sxm"),
        ("h100_sxm", "sglang", None, "framework on h100_sxm .*allowed: vllm"),
        ("h100_sxm", "tgi", None, "framework .*allowed: sglang, trtllm, vllm"),
        ("h100_sxm", "vllm", "0.24.1", r'"0\.24\.1" .*allowed: 0\.24\.0, 0\.9\.1'),
    ],
)
def test_what_the_wheel_lacks_is_said(
    wheel: Wheel, gpu: str, framework: str, version: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        import_wheel(wheel, gpu, framework, version)


def test_a_wheel_without_gemms_is_refused(tmp_path: Path) -> None:
    rows = {"prefill_attention": [ATTENTION], "decode_attention": [ATTENTION]}
    path = one_wheel(tmp_path / CORE_WHEEL, [NEW], rows)
    with pytest.raises(ConfigError, match="no gemm table of vllm on h100_sxm"):
        import_wheel(open_wheel(path, CORE), "h100_sxm", "vllm")


def test_a_missing_column_is_one_line(tmp_path: Path) -> None:
    gemm = [{"gemm_dtype": "bfloat16", "m": 1, "n": 64}]
    path = one_wheel(tmp_path / CORE_WHEEL, [NEW], {**ROWS, "gemm": gemm})
    with pytest.raises(ConfigError, match=r"gemm_perf\.parquet: no column 'k'$"):
        import_wheel(open_wheel(path, CORE), "h100_sxm", "vllm")


def test_a_changed_table_is_refused(tmp_path: Path) -> None:
    """Its SHA-256 is not the one in the wheel's own RECORD."""
    path = one_wheel(tmp_path / CORE_WHEEL, [NEW], ROWS)
    changed = tmp_path / "changed" / CORE_WHEEL
    changed.parent.mkdir()
    member = NEW.member("gemm", "gemm")[0]
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        other = old.read(NEW.member("moe", "moe")[0])
        for name in old.namelist():
            new.writestr(name, other if name == member else old.read(name))
    with pytest.raises(ConfigError, match=r"gemm_perf.*damaged: its SHA-256"):
        import_wheel(open_wheel(changed, CORE), "h100_sxm", "vllm")


def test_a_truncated_wheel_is_refused(tmp_path: Path) -> None:
    path = one_wheel(tmp_path / CORE_WHEEL, [NEW], ROWS)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ConfigError, match="cannot read this wheel"):
        open_wheel(path, CORE)


def test_a_flipped_bit_in_a_member_is_refused(tmp_path: Path) -> None:
    path = one_wheel(tmp_path / CORE_WHEEL, [NEW], ROWS)
    content = bytearray(path.read_bytes())
    member, _ = NEW.member("gemm", "gemm")
    content[content.index(member.encode()) + len(member) + 40] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="gemm_perf") as refused:
        read_member(open_wheel(path, CORE), member)
    assert "\n" not in str(refused.value)


def test_most_rows_of_two_ways_to_compute(tmp_path: Path) -> None:
    """SGLang's fp8 KV rows: per head shape, the attention format measured most."""
    rows = [
        {**ATTENTION, "attn_dtype": "fp8", "isl": 16, "latency": 0.002},
        {**ATTENTION, "attn_dtype": "fp8", "isl": 32, "latency": 0.003},
        {**ATTENTION, "attn_dtype": "bfloat16", "isl": 16, "latency": 0.009},
        {**ATTENTION, "attn_dtype": "bfloat16", "num_heads": 8, "latency": 0.004},
    ]
    sglang = Collection("h100_sxm", "sglang", "0.5.14", None, {})
    path = one_wheel(
        tmp_path / CORE_WHEEL, [sglang], {**ROWS, "prefill_attention": rows}
    )
    pack = import_wheel(open_wheel(path, CORE), "h100_sxm", "sglang").pack
    write_set(tmp_path, [pack])
    tables = load_tables("h100_sxm", tmp_path, "sglang")
    assert tables.select("prefill_attention", num_heads=4)["latency_ns"].tolist() == [
        *(2000, 3000)
    ]
    assert tables.select("prefill_attention", num_heads=8)["latency_ns"].size == 1


def test_versions_sort_as_python_does() -> None:
    ordered = ["0.1.dev19262", "0.5.6", "0.5.6.post2", "0.14.0", "1.3.0rc9"]
    ordered += ["1.3.0rc20", "1.3.0"]
    assert sorted(set(ordered), key=version_key) == ordered


def test_provenance_of_an_import_names_the_wheel(wheel: Wheel) -> None:
    entry = import_wheel(wheel, "h100_sxm", "vllm").pack.tables["gemm"]
    assert (entry["wheel"], entry["package_version"]) == (CORE_WHEEL, "0.12.0")
    assert entry["kernel_source"] == [HEADER["kernel_source"]]
    digest = pack_format.sha256(wheel.read(entry["member"]))
    assert entry["member_sha256"] == digest
