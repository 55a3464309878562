"""Sweeps: the table they write, what they skip, and that nothing breaks them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.config import Config
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.runner import run_config
from sim.studies import sweep as module
from sim.studies.key import point_key
from sim.studies.store import POINT_FILE, PointStore, only_writer
from sim.studies.study import read_study
from sim.studies.sweep import SweepOptions, SweepPlan, plan_sweep, sweep
from sim.studies.worker import simulate
from workloads.streams import stream

STUDY = """
replications = 2
config.workload.num_requests = 4
[[vary]]
engine.scheduler = ["chunked-prefill", "layered-prefill"]
workload.request_rate = [1.0, 2.0]
"""
ONE = SweepOptions(jobs=1)


def plan_of(tmp_path: Path, text: str = STUDY) -> SweepPlan:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return plan_sweep(read_study(path))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_row_is_the_run_of_its_settings(tmp_path: Path) -> None:
    """Although points share machines; a configuration alone gives the same."""
    plan = plan_of(tmp_path)
    done: list[None] = []
    result = sweep(plan, tmp_path / "out", ONE, lambda: done.append(None))
    assert len(done) == result.ran == len(result.points) == 8
    frame = pd.read_csv(tmp_path / "out/points.csv")
    assert list(frame.columns[:6]) == [
        *("key", "status", "error"),
        *("engine.scheduler", "workload.request_rate", "seed"),
    ]
    for point, (_, row) in zip(plan.points, frame.iterrows(), strict=True):
        alone = run_config(point.config).summary
        assert row["mean_ttft_ms"] == alone["mean_ttft_ms"]
        assert row["energy_j"] == alone["energy_j"]
        assert row["config_sha256"] == alone["config_sha256"]
    if find_spec("pyarrow"):  # Parquet is written where its library is
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / "out/points.parquet")[["mean_ttft_ms"]],
            frame[["mean_ttft_ms"]],
        )


def test_bytes_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    """Two processes or none."""
    plan = plan_of(tmp_path)
    sweep(plan, tmp_path / "a", ONE)
    sweep(plan, tmp_path / "b", SweepOptions(jobs=2))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_only_new_points_run(tmp_path: Path) -> None:
    """A wider study in the same folder adds to it."""
    sweep(plan_of(tmp_path), tmp_path / "out", ONE)
    wider = plan_of(tmp_path, STUDY.replace("[1.0, 2.0]", "[1.0, 2.0, 3.0]"))
    result = sweep(wider, tmp_path / "out", ONE)
    assert (result.ran, len(result.points)) == (4, 12)
    assert sweep(wider, tmp_path / "out", ONE).ran == 0


def test_a_damaged_point_runs_again(tmp_path: Path) -> None:
    """Truncated, edited or replaced by rubbish; temporary files go."""
    plan = plan_of(tmp_path)
    sweep(plan, tmp_path / "out", ONE)
    before = digests(tmp_path / "out")
    files = sorted((tmp_path / "out/points").glob(f"*/{POINT_FILE}"))
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_text(files[1].read_text().replace("null", "1", 1))
    files[2].write_text("[1]")
    files[3].write_bytes(files[4].read_bytes())
    (files[5].parent / ".0123.tmp").write_text("half")
    edited = digests(tmp_path / "out")
    assert edited != before
    assert sweep(plan, tmp_path / "out", ONE).ran == 4
    assert digests(tmp_path / "out") == before


def test_failures_are_rows_and_run_again_only_when_asked(tmp_path: Path) -> None:
    """They stop no other point."""
    text = """
    config.workload.num_requests = 2
    [[vary]]
    cluster.gpu = ["h100_sxm", "a100_sxm"]
    model.dtype = "fp8"
    """
    plan = plan_of(tmp_path, text)
    result = sweep(plan, tmp_path / "out", ONE)
    assert result.points["status"].tolist() == ["ok", "failed"]
    assert "this GPU cannot run it" in result.failed["error"].iloc[0]
    assert sweep(plan, tmp_path / "out", ONE).ran == 0
    assert (
        sweep(plan, tmp_path / "out", SweepOptions(jobs=1, retry_failed=True)).ran == 1
    )


def test_a_bug_in_one_point_is_a_failure_of_that_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the kind of error."""

    def explode(*_: object) -> None:
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr("sim.studies.worker.simulate", explode)
    result = sweep(plan_of(tmp_path), tmp_path / "out", ONE)
    assert set(result.failed["error"]) == {"ZeroDivisionError: float division by zero"}


def test_all_points_are_checked_before_any_runs(tmp_path: Path) -> None:
    """The last is wrong."""
    with pytest.raises(ConfigError, match=r"study\.toml: engine\.scheduler = \"orka\""):
        plan_of(tmp_path, '[[vary]]\nengine.scheduler = ["orca", "orka"]')


def test_equal_points_run_once(tmp_path: Path) -> None:
    """Blocks may overlap."""
    text = "[[vary]]\nseed = [1, 2]\n[[vary]]\nseed = [2, 3]"
    assert [s["seed"] for s in plan_of(tmp_path, text).settings] == [1, 2, 3]


def test_key_is_the_content_of_files_not_their_place(tmp_path: Path) -> None:
    """A trace that moved is the same; one that changed is not."""
    rows = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,10,2\n"
    keys = []
    for folder, text in (("a", rows), ("b", rows), ("c", rows + "1.0,20,2\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "trace.csv").write_text(text)
        plan = plan_of(tmp_path / folder, 'config.workload.path = "trace.csv"')
        keys.append(plan.points[0].key)
    assert keys[0] == keys[1] != keys[2]


def test_key_depends_on_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of another version are not taken for this one's."""
    before = point_key(Config())
    monkeypatch.setattr("sim.studies.key.code_sha256", lambda: "other")
    assert point_key(Config()) != before


def test_two_sweeps_in_one_folder(tmp_path: Path) -> None:
    """The second is refused; the lock goes with the process, not with the file."""
    plan = plan_of(tmp_path)
    with (
        only_writer(tmp_path / "out"),
        pytest.raises(ConfigError, match="another study is writing"),
    ):
        sweep(plan, tmp_path / "out", ONE)
    assert sweep(plan, tmp_path / "out", ONE).ran == 8


def test_read_only_folder_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system says it (root may write anywhere, hence the patch)."""

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    plan = plan_of(tmp_path)
    monkeypatch.setattr("sim.studies.store.os.open", refuse)
    with pytest.raises(ConfigError, match="cannot be written: Permission denied"):
        sweep(plan, tmp_path / "out", ONE)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        sweep(plan, tmp_path / "file", ONE)


@pytest.mark.long
def test_a_full_disk_stops_the_sweep_and_spares_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no failure of the point; with room again the sweep goes on."""
    plan, written = plan_of(tmp_path), 0
    real = os.fsync

    def full_after_six(descriptor: int) -> None:
        nonlocal written
        written += 1
        if written > 6:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("sim.files.os.fsync", full_after_six)
    with pytest.raises(ConfigError, match="No space left on device"):
        sweep(plan, tmp_path / "out", ONE)
    assert not list((tmp_path / "out").rglob("*.tmp"))
    monkeypatch.setattr("sim.files.os.fsync", real)
    assert sweep(plan, tmp_path / "out", ONE).ran == 8 - 3
    sweep(plan, tmp_path / "undisturbed", ONE)
    assert digests(tmp_path / "out") == digests(tmp_path / "undisturbed")


def test_a_clock_that_was_set_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No decision reads a time."""
    plan = plan_of(tmp_path)
    sweep(plan, tmp_path / "out", ONE)
    for path in (tmp_path / "out").rglob("*"):
        os.utime(path, (4e9, 4e9))
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert sweep(plan, tmp_path / "out", ONE).ran == 0


def test_full_writes_the_files_of_each_run(tmp_path: Path) -> None:
    """Beside the record."""
    plan = plan_of(tmp_path, "config.workload.num_requests = 2")
    sweep(plan, tmp_path / "out", SweepOptions(jobs=1, full=True))
    folder = PointStore(tmp_path / "out").folder(plan.points[0].key)
    names = {"point.json", "result.json", "config.toml"}
    assert names < {path.name for path in folder.iterdir()}


@pytest.mark.long
def test_machines_are_shared_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same results on a machine others used; settings that make one are not mixed."""
    configs = [
        load_config(None, ["workload.num_requests=6", *settings])
        for settings in (
            ["engine.scheduler=orca"],
            ["engine.scheduler=layered-prefill", "seed=3"],
            ["cluster.hbm_bandwidth_scale=2.0"],
            ["parallel.tensor_parallel_size=1"],
            ["slo.ttft_ms=1.0"],
        )
    ]
    fresh = [run_config(config).summary for config in configs]
    assert [simulate(config).summary for config in configs] == fresh
    monkeypatch.setattr("sim.studies.worker._RUNS_PER_MACHINE", 1)
    assert [simulate(config).summary for config in configs] == fresh


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dry run, table, JSON; exit code 1 with a failed point."""
    monkeypatch.chdir(tmp_path)
    plan_of(tmp_path)
    run = CliRunner().invoke
    dry = run(app, ["sweep", "study.toml", "--dry-run"])
    assert dry.exit_code == 0
    assert dry.stdout.startswith("8 points, 8 to run, about ")
    assert not Path("servescope-sweep").exists()
    shown = run(app, ["sweep", "study.toml", "--jobs", "1"])
    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "8 points, 8 of them run now, 0 failed" in shown.stdout
    again = run(app, ["sweep", "study.toml", "--json"])
    assert len(json.loads(again.stdout)["points"]) == 8
    bad = [*("sweep", "study.toml"), *("--set", "parallel.tensor_parallel_size=1")]
    failed = run(app, [*bad, "--set", "model.name=Qwen/Qwen3-235B-A22B", "-q"])
    assert failed.exit_code == 1
    assert "does not fit in memory" in failed.stderr
    assert "3 more; see error in points.csv" in failed.stderr


def kill_at_random(out: Path, study: Path, draw: np.random.Generator) -> list[str]:
    """Start the command, kill it and its workers; the keys it had acknowledged."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from sim.cli import main; main()"),
            *("sweep", str(study), "--out", str(out), "--jobs", "2", "-q"),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    points = len(list(out.glob(f"points/*/{POINT_FILE}")))
    while process.poll() is None:  # let it get past its imports, then any instant
        if len(list(out.glob(f"points/*/{POINT_FILE}"))) > points:
            break
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.5))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return [path.parent.name for path in out.glob(f"points/*/{POINT_FILE}")]


@pytest.mark.long
def test_kill_9_loses_no_point(tmp_path: Path) -> None:
    """Every point that was there is whole and stays; the end is as if undisturbed."""
    text = STUDY.replace("[1.0, 2.0]", "{ from = 1.0, to = 40.0, step = 0.25 }")
    plan, out = plan_of(tmp_path, text), tmp_path / "out"
    draw, store = stream(0, "kills"), PointStore(out)
    for _ in range(50):
        kept = {
            key: store.get(key)
            for key in kill_at_random(out, tmp_path / "study.toml", draw)
        }
        assert all(kept.values())  # no torn file
        assert len(list(out.rglob("*.tmp"))) <= 2  # at most one point per worker
        remaining = module.pending(plan, out)
        assert len(remaining) == len(plan.points) - len(kept)
    sweep(plan, out, ONE)
    sweep(plan, tmp_path / "undisturbed", ONE)
    assert digests(out) == digests(tmp_path / "undisturbed")
