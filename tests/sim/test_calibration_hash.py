"""The calibration hash of a run changes with everything that prices a plan."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import sim.build
from calibration.hardware import Gpu, gpu
from calibration.tables import DATA_DIR
from sim.build import build_machine
from sim.config_file import load_config


def test_rooflines_fitted_anew_change_the_hash(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(DATA_DIR, data_dir)
    config = load_config(None, flags={"calibration.data_dir": str(data_dir)})
    copied = build_machine(config).calibration_sha256
    assert copied == build_machine(load_config(None)).calibration_sha256
    # The fits of a process are read once: another folder, not the same one changed.
    changed = shutil.copytree(data_dir, tmp_path / "changed")
    fits = json.loads((changed / "moe_roofline.json").read_text())
    for entry in fits["slices"].values():
        entry["t0_ns"] += 1.0
    (changed / "moe_roofline.json").write_text(json.dumps(fits))
    config = load_config(None, flags={"calibration.data_dir": str(changed)})
    assert build_machine(config).calibration_sha256 != copied


def test_another_gpu_entry_changes_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = build_machine(load_config(None)).calibration_sha256

    def slower(name: str) -> Gpu:
        entry = gpu(name)
        return replace(entry, elementwise_latency_us=entry.elementwise_latency_us * 2)

    monkeypatch.setattr(sim.build, "gpu", slower)
    assert build_machine(load_config(None)).calibration_sha256 != shipped
