"""The packs as files: sizes, hashes, provenance, and what damage is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from calibration.pack_sources import MOE_TABLES
from calibration.tables import DATA_DIR, KernelTables, load_tables
from sim.errors import ConfigError

MB = 1_000_000
PROVENANCE = json.loads((DATA_DIR / "provenance.json").read_text())
PACKS = sorted(PROVENANCE["packs"])


def load(pack: str) -> KernelTables:
    gpu, _, framework = pack.partition(".")
    return load_tables(gpu, framework=framework or "vllm")


@pytest.fixture
def copied_data(tmp_path: Path) -> Path:
    for name in ("a100_sxm.npz", "provenance.json"):
        shutil.copy(DATA_DIR / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("pack", PACKS)
def test_packs_are_small_plain_and_as_recorded(pack: str) -> None:
    """Below 2 MB, hash as in provenance.json, no object arrays, dated 1980."""
    entry = PROVENANCE["packs"][pack]
    path = DATA_DIR / entry["file"]
    content = path.read_bytes()
    assert len(content) == entry["bytes"] < 2 * MB
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert load(pack).sha256 == entry["sha256"]
    with zipfile.ZipFile(path) as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}
    with np.load(path, allow_pickle=False) as members:
        assert {members[name].dtype.kind for name in members.files} == {"u", "U"}


def test_all_packs_together_are_small() -> None:
    """Every file of the folder, below the 12 MB the project allows itself."""
    assert sum(path.stat().st_size for path in DATA_DIR.iterdir()) < 12 * MB
    assert {path.stem for path in DATA_DIR.glob("*.npz")} == set(PACKS)


@pytest.mark.parametrize("pack", PACKS)
def test_provenance_names_the_source_of_every_table(pack: str) -> None:
    gpu, _, framework = pack.partition(".")
    for table, entry in load(pack).provenance.items():
        legacy = table in ("moe_untuned", "moe_fp8")
        assert entry["package"] == (
            "aiconfigurator" if legacy else "aiconfigurator-core"
        )
        assert entry["package_version"] == ("0.10.0" if legacy else "0.12.0")
        assert entry["licence"] == "Apache-2.0"
        assert gpu[:4].upper().replace("_", " ") in entry["device"][0]
        maker = "TRTLLM" if table == "nccl" else (framework or "vllm").upper()
        maker = "SGLANG" if framework == "deepep" else maker  # its image ran them
        assert [name.upper() for name in entry["framework"]] == [maker]
        assert len(entry["wheel_sha256"]) == len(entry["member_sha256"]) == 64
        assert entry["member"].endswith("_perf.parquet")
        phases = 2 if framework == "deepep" else 1
        assert 0 < entry["rows"] <= phases * entry["source_rows"]
        assert entry["kernel_source"]
        assert any("rounded" in note for note in entry["modified"])


def test_every_packed_moe_slice_has_a_roofline() -> None:
    """Fitted to its own rows; none is left of slices that are not packed."""
    fits = json.loads((DATA_DIR / "moe_roofline.json").read_text())["slices"]
    keys: tuple[str, ...] = ("hidden_size", "inter_size", "topk", "num_experts")
    keys += ("moe_tp_size", "moe_ep_size")
    wanted = set()
    for tables in map(load, PACKS):
        for table in set(MOE_TABLES) & set(tables.names):
            columns = tables.columns(table)
            rows = zip(columns["dtype"], *(columns[key] for key in keys), strict=True)
            for dtype, *numbers in set(rows):
                slice_name = "-".join(map(str, numbers))
                wanted.add(f"{tables.pack}/{table}/{dtype}/{slice_name}")
    assert set(fits) == wanted


def test_an_unknown_framework_says_what_there_is() -> None:
    words = r'h100_sxm "sglan" .*allowed: sglang, trtllm, vllm'
    with pytest.raises(ConfigError, match=words):
        load_tables("h100_sxm", framework="sglan")


@pytest.mark.parametrize("key", ["file", "gpu", "framework", "sha256", "tables"])
def test_a_damaged_entry_is_refused(copied_data: Path, key: str) -> None:
    """Also one that points out of its folder."""
    for bad in (None, "../a100_sxm.npz" if key == "file" else 1):
        document = json.loads((DATA_DIR / "provenance.json").read_text())
        document["packs"]["a100_sxm"][key] = bad
        (copied_data / "provenance.json").write_text(json.dumps(document))
        with pytest.raises(ConfigError, match="damaged list of packs"):
            load_tables("a100_sxm", copied_data)


def test_a_file_that_is_no_archive_is_refused(copied_data: Path) -> None:
    """Even where its checksum is the recorded one."""
    content = b"not an archive"
    (copied_data / "a100_sxm.npz").write_bytes(content)
    document = json.loads((DATA_DIR / "provenance.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    document["packs"]["a100_sxm"]["sha256"] = digest
    (copied_data / "provenance.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"a100_sxm\.npz: not a pack"):
        load_tables("a100_sxm", copied_data)


def test_a_corrupt_pack_is_refused(copied_data: Path) -> None:
    pack = copied_data / "a100_sxm.npz"
    content = bytearray(pack.read_bytes())
    assert load_tables("a100_sxm", copied_data).names
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a100_sxm\.npz: corrupt") as refused:
        load_tables("a100_sxm", copied_data)
    assert "\n" not in str(refused.value)


def test_a_missing_pack_is_refused(copied_data: Path) -> None:
    (copied_data / "a100_sxm.npz").unlink()
    with pytest.raises(ConfigError, match=r"a100_sxm\.npz: cannot read: No such file"):
        load_tables("a100_sxm", copied_data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a provenance file"),
        ("[]", "not a provenance file"),
        ('{"schema": "calibration/1", "packs": {}}', "allowed: 'calibration/2'"),
    ],
)
def test_broken_provenance_is_refused(
    copied_data: Path, text: str, message: str
) -> None:
    (copied_data / "provenance.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_tables("a100_sxm", copied_data)
