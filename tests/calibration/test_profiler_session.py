"""A session that is killed anywhere goes on, and ends in the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from calibration.profiler.columns import Kernel
from calibration.profiler.device import DeviceLostError
from calibration.profiler.journal import Journal
from calibration.profiler.schema import kernel, read_rows
from calibration.profiler.session import Session, run_session
from sim.errors import ConfigError
from tests.calibration.fake_gpu import (
    QUICK,
    FakeGpu,
    Killed,
    median_error,
    true_ns,
)

KERNELS = tuple(
    kernel("gemm", dtype="bfloat16", n=512, k=256, m=m) for m in (1, 64, 8, 512, 2)
)


def session(out: Path, *, seed: int = 0, date: str = "2026-11-24") -> Session:
    return Session(out=out, rules=QUICK, seed=seed, date=date)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The files of an uninterrupted session."""
    run_session(FakeGpu(), KERNELS, session(tmp_path / "whole"))
    return files(tmp_path / "whole")


def test_the_table_holds_every_kernel_with_its_time(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """Sorted, readable by the importer, within the target of the truth."""
    assert sorted(whole) == ["journal.jsonl", "kernels.csv", "provenance.json"]
    rows = read_rows(tmp_path / "whole" / "kernels.csv")
    assert [row.kernel.size("m") for row in rows] == [1, 2, 8, 64, 512]
    assert all(median_error(r.kernel, r.latency_ns) < 0.02 for r in rows)


def test_the_provenance_says_where_the_table_is_from(whole: dict[str, bytes]) -> None:
    """Device, sources, date, seed, rules and the table's hash."""
    provenance = json.loads(whole["provenance.json"])
    assert provenance["sha256"] == sha256(whole["kernels.csv"]).hexdigest()
    assert provenance["device"] == {"gpu": "fake"}
    assert provenance["kernel_sources"] == {"fake": len(KERNELS)}
    assert (provenance["date"], provenance["seed"]) == ("2026-11-24", 0)
    assert provenance["rules"]["relative_ci"] == QUICK.relative_ci


@pytest.mark.parametrize("done", range(len(KERNELS)))
def test_a_session_killed_between_rows_goes_on(
    tmp_path: Path, whole: dict[str, bytes], done: int
) -> None:
    """Nothing is measured twice; the files end in the same bytes, a day later too."""
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        run_session(FakeGpu(kill_at=done), KERNELS, session(out))
    assert sorted(files(out)) == ["journal.jsonl"]
    gpu = FakeGpu()
    run_session(gpu, KERNELS, session(out, date="2026-11-25"))
    assert tuple(gpu.captured) == KERNELS[done:]
    assert files(out) == whole


def test_a_session_killed_while_it_writes_goes_on(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """The journal cut at any byte: rows that end are kept, the torn one is redone."""
    journal = whole["journal.jsonl"]
    for cut in range(0, len(journal), 23):
        out = tmp_path / str(cut)
        out.mkdir()
        (out / "journal.jsonl").write_bytes(journal[:cut])
        gpu = FakeGpu()
        run_session(gpu, KERNELS, session(out))
        kept = max(journal[:cut].count(b"\n") - 1, 0)
        assert tuple(gpu.captured) == KERNELS[kept:]
        assert files(out) == whole


def test_a_finished_session_measures_nothing(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """And leaves the same files."""
    gpu = FakeGpu(kill_at=0)
    done: list[int] = []
    run_session(gpu, KERNELS, session(tmp_path / "whole"), lambda: done.append(1))
    assert (gpu.captured, len(done)) == ([], len(KERNELS))
    assert files(tmp_path / "whole") == whole


def test_kernels_that_fail_are_recorded_and_the_others_measured(tmp_path: Path) -> None:
    """Out of memory is a fact about that kernel, also after a resume."""
    for _ in range(2):
        gpu = FakeGpu(out_of_memory=[KERNELS[1]])
        entries = run_session(gpu, KERNELS, session(tmp_path))
    assert gpu.captured == []
    assert [entry.kernel for entry in entries if entry.failed] == [KERNELS[1]]
    assert len(read_rows(tmp_path / "kernels.csv")) == len(KERNELS) - 1
    failed = json.loads((tmp_path / "provenance.json").read_text())["failed"]
    assert failed == {KERNELS[1].name: "OutOfMemoryError: 80 GB are not enough"}


def test_the_table_says_by_what_each_kernel_was_timed(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """Kernels alone, with the time by events beside; also after a resume."""
    gpu = FakeGpu(launch_ns=3_000, traces=True, sigma=0.0)
    run_session(gpu, KERNELS[:2], session(tmp_path / "out"))
    run_session(gpu, KERNELS, session(tmp_path / "out"))
    for row in read_rows(tmp_path / "out" / "kernels.csv"):
        assert row.timer == "cupti"
        assert row.latency_ns == true_ns(row.kernel)
        assert row.event_ns == row.latency_ns + 3_000
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert provenance["timers"] == {"cupti": len(KERNELS)}
    assert json.loads(whole["provenance.json"])["timers"] == {
        "cuda-event": len(KERNELS)
    }


def test_flags_are_in_the_provenance(tmp_path: Path) -> None:
    """The table has no column for them."""
    run_session(FakeGpu(slowdowns=("power-cap",)), KERNELS[:1], session(tmp_path))
    flagged = json.loads((tmp_path / "provenance.json").read_text())["flagged"]
    assert flagged == {KERNELS[0].name: ["slowdown:power-cap"]}


def test_a_lost_device_ends_the_session_behind_its_kernel(tmp_path: Path) -> None:
    """So that the next run does not fall into the same kernel again."""
    gpu = FakeGpu(lost_at=2, out_of_memory=[KERNELS[2]])
    with pytest.raises(DeviceLostError):
        run_session(gpu, KERNELS, session(tmp_path))
    again = FakeGpu()
    run_session(again, KERNELS, session(tmp_path))
    assert tuple(again.captured) == KERNELS[3:]


def test_a_larger_grid_keeps_what_was_measured(tmp_path: Path) -> None:
    """A session grows with its budget."""
    run_session(FakeGpu(), KERNELS[:2], session(tmp_path))
    gpu = FakeGpu()
    assert len(run_session(gpu, KERNELS, session(tmp_path))) == len(KERNELS)
    assert tuple(gpu.captured) == KERNELS[2:]


def test_other_ranks_measure_too_and_write_nothing(tmp_path: Path) -> None:
    """All ranks wait for each other before the first one writes."""
    gpu = FakeGpu(rank=1, num_ranks=2)
    entries = run_session(gpu, KERNELS, session(tmp_path / "out"))
    assert len(entries) == len(KERNELS)
    assert gpu.log[0] == "ranks"
    assert not (tmp_path / "out").exists()


def test_another_session_in_the_folder_is_refused(tmp_path: Path) -> None:
    """Rows of two seeds or two rules must not mix."""
    run_session(FakeGpu(), KERNELS[:1], session(tmp_path))
    with pytest.raises(ConfigError, match=r"begun with seed = 0, now 1"):
        run_session(FakeGpu(), KERNELS[:1], session(tmp_path, seed=1))
    other = replace(session(tmp_path), rules=replace(QUICK, relative_ci=0.5))
    with pytest.raises(ConfigError, match=r"relative_ci = 0.02, now 0.5"):
        run_session(FakeGpu(), KERNELS[:1], other)


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", '{"kernel": ["gemm", 1]}', '{"kernel": ["fft"]}']
)
def test_damage_before_the_last_line_is_an_error(
    tmp_path: Path, whole: dict[str, bytes], line: str
) -> None:
    """A crash tears the end only; anything else needs a person."""
    lines = whole["journal.jsonl"].splitlines()
    lines[2] = line.encode()
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(ConfigError, match=r"journal.jsonl: line 3: damaged"):
        run_session(FakeGpu(), KERNELS, session(tmp_path))


def test_a_foreign_file_is_not_taken_for_a_journal(tmp_path: Path) -> None:
    """Its first line has another schema."""
    (tmp_path / "journal.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(ConfigError, match="line 1: not a journal"):
        run_session(FakeGpu(), KERNELS, session(tmp_path))


def test_two_processes_cannot_write_one_session(tmp_path: Path) -> None:
    """The second one is told; once the first is gone it may go on."""
    path = tmp_path / "journal.jsonl"
    with (
        Journal(path, {}, "today", writable=True),
        pytest.raises(ConfigError, match="in use by another process"),
    ):
        Journal(path, {}, "today", writable=True)
    Journal(path, {}, "today", writable=True).close()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """The name is taken by a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        run_session(FakeGpu(), KERNELS, session(tmp_path / "file" / "out"))


def test_values_survive_the_journal(tmp_path: Path) -> None:
    """A resumed entry equals the measured one, timing and all."""
    rules = replace(QUICK, energy_window_ns=5_000_000_000)
    with_energy = replace(session(tmp_path), rules=rules)
    slow = kernel("gemm", dtype="bfloat16", n=1, k=1, m=10_000_000)
    kernels: tuple[Kernel, ...] = (slow,)
    gpu = FakeGpu(slowdowns=("power-cap",))
    first = run_session(gpu, kernels, with_energy)
    assert run_session(FakeGpu(), kernels, with_energy) == first
    assert all(e.timing is not None and e.timing.energy_mj for e in first)
