"""``servescope calibrate profile`` from its arguments to its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.profiler.grid import Split
from calibration.profiler.schema import read_rows
from calibration.profiler.session import Session
from calibration.profiler.timing import MIN_ENERGY_WINDOW_NS
from sim.cli_profile import new_session, profile_command
from sim.errors import ConfigError
from tests.calibration.fake_gpu import QUICK, FakeGpu

QWEN = "Qwen/Qwen3-30B-A3B"


def quick(out: Path) -> Session:
    return Session(out=out, rules=QUICK, seed=0, date="2026-11-24")


def profile(out: Path, gpu: FakeGpu, *, tp: int = 1, as_json: bool = True) -> None:
    profile_command(
        quick(out),
        [QWEN],
        Split(tp),
        budget_s=90,
        as_json=as_json,
        device_factory=lambda seed: gpu,
    )


def test_a_budget_measures_the_coarse_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed counts are those of the table; the rest is beyond the budget."""
    gpu = FakeGpu(sigma=0.0)
    profile(tmp_path, gpu)
    printed = json.loads(capsys.readouterr().out)
    rows = read_rows(tmp_path / "kernels.csv")
    for table in ("gemm", "moe", "prefill_attention", "decode_attention"):
        count = sum(row.kernel.table == table for row in rows)
        assert printed[table] == {"measured": count, "flagged": 0, "failed": 0}
        assert count > 0
    assert printed["beyond_budget"] > 0
    assert len(gpu.captured) == len(rows)


def test_failures_are_said_and_are_not_fatal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table for people, and a note with the reason."""
    profile(tmp_path / "all", all_of := FakeGpu(sigma=0.0))
    capsys.readouterr()
    gpu = FakeGpu(sigma=0.0, out_of_memory=all_of.captured[:2])
    profile(tmp_path / "some", gpu, as_json=False)
    printed = capsys.readouterr()
    assert "note: 2 failed: OutOfMemoryError" in printed.err
    assert "kernels.csv; " in printed.out


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured is kept; the same command ends the work."""
    gpu = FakeGpu(sigma=0.0)
    launch = gpu.launch

    def interrupted(replay: object) -> None:
        if len(gpu.captured) == 3:
            raise KeyboardInterrupt
        launch(replay)  # type: ignore[arg-type]

    monkeypatch.setattr(gpu, "launch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        profile(tmp_path, gpu)
    assert "run the same command to go on" in capsys.readouterr().err
    again = FakeGpu(sigma=0.0)
    profile(tmp_path, again)
    assert again.captured[0] == gpu.captured[2]


def test_one_process_measures_no_collectives_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The note has the command to start; with a group they are there."""
    profile(tmp_path / "one", FakeGpu(sigma=0.0), tp=2)
    assert "torchrun --nproc-per-node 2" in capsys.readouterr().err
    profile(tmp_path / "two", FakeGpu(sigma=0.0, num_ranks=2), tp=2)
    assert json.loads(capsys.readouterr().out)["nccl"]["measured"] > 0


def test_a_group_of_another_size_is_refused(tmp_path: Path) -> None:
    """Before anything is measured."""
    with pytest.raises(ConfigError, match=r"--tp 4: 2 processes were started"):
        profile(tmp_path, FakeGpu(num_ranks=2), tp=4)
    assert not list(tmp_path.iterdir())


def test_without_an_energy_counter_only_times_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No five seconds are spent on what cannot be read; a note says so."""
    gpu = FakeGpu(sigma=0.0, has_counter=False)
    rules = replace(QUICK, energy_window_ns=MIN_ENERGY_WINDOW_NS)
    profile_command(
        replace(quick(tmp_path), rules=rules),
        [QWEN],
        Split(),
        budget_s=90,
        device_factory=lambda seed: gpu,
    )
    assert "no energy counter" in capsys.readouterr().err
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert provenance["rules"]["energy_window_ns"] == 0


def test_a_usual_session_measures_energy_unless_told_not_to(tmp_path: Path) -> None:
    """Five seconds a kernel is what a budget is spent on."""
    usual = new_session(tmp_path, date="today")
    assert usual.rules.energy_window_ns == MIN_ENERGY_WINDOW_NS
    bare = new_session(tmp_path, date="today", energy=False)
    assert bare.rules.energy_window_ns == 0
