"""The optimiser: seeded, resumable, and better than chance where it must be."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.errors import ConfigError
from sim.studies.optimise import Optimisation, optimise
from sim.studies.study import Space, read_space
from sim.studies.sweep import SweepOptions
from tests.sim.studies.test_sweep import digests

SPACE = """
config.workload.num_requests = 3
[[vary]]
engine.scheduler = ["orca", "layered-prefill"]
engine.num_layer_groups = { from = 1, to = 48 }
cluster.hbm_bandwidth_scale = { from = 0.5, to = 2.0, scale = "log" }
"""


def space(tmp_path: Path, text: str = SPACE) -> Space:
    path = tmp_path / "space.toml"
    path.write_text(text)
    return read_space(path)


def search(trials: int, jobs: int = 1, seed: int = 0) -> Optimisation:
    return Optimisation(("ttft", "tbt"), trials, seed, SweepOptions(jobs))


@pytest.mark.long
def test_same_command_same_points_and_goes_on(tmp_path: Path) -> None:
    """Whether it ran through, died half-way or on two workers; not at another seed."""
    pytest.importorskip("optuna", reason="needs the extra optimise")
    where = space(tmp_path)
    whole = optimise(where, tmp_path / "a", search(12))
    for path in list((tmp_path / "a/points").iterdir())[::3]:
        (path / "point.json").unlink()
    pd.testing.assert_frame_equal(optimise(where, tmp_path / "a", search(12)), whole)
    optimise(where, tmp_path / "b", search(12, jobs=2))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    other = optimise(where, tmp_path / "c", search(12, seed=1))
    assert set(other["key"]) != set(whole["key"])


@pytest.mark.long
def test_it_turns_to_where_the_best_is(tmp_path: Path) -> None:
    """TTFT falls with bandwidth: later proposals have more than the first ones."""
    pytest.importorskip("optuna", reason="needs the extra optimise")
    text = """
    config.workload.num_requests = 2
    [[vary]]
    cluster.hbm_bandwidth_scale = { from = 0.1, to = 2.0 }
    """
    frame = optimise(space(tmp_path, text), tmp_path / "o", Optimisation(("ttft",), 48))
    scale = frame["cluster.hbm_bandwidth_scale"]
    assert scale.tail(16).mean() > scale.head(16).mean() + 0.2
    assert scale[frame["mean_ttft_ms"].idxmin()] > 1.8


def test_bad_spaces_and_metrics(tmp_path: Path) -> None:
    """Before anything runs."""
    with pytest.raises(ConfigError, match="one block"):
        space(tmp_path, SPACE + "[[vary]]\nseed = [1]")
    pytest.importorskip("optuna", reason="needs the extra optimise")
    for metrics in ((), ("ttft",) * 4, ("ttfb",)):
        with pytest.raises(ConfigError):
            optimise(space(tmp_path), tmp_path / "o", Optimisation(metrics))
    slip = space(tmp_path, '[[vary]]\nengine.scheduler = ["orka"]')
    with pytest.raises(ConfigError, match="did you mean"):
        optimise(slip, tmp_path / "o", search(1))
    assert not list((tmp_path / "o").glob("points*"))


CORNERS = """
config.workload.num_requests = 2
config.parallel.tensor_parallel_size = 1
[[vary]]
model.name = ["Qwen/Qwen3-8B", "Qwen/Qwen3-235B-A22B"]
parallel.tensor_parallel_size = [1, 2]
cluster.gpus_per_node = [1, 2]
workload.request_rate = { from = 1.0, to = 4.0, step = 0.5 }
"""


def test_it_goes_round_corners_and_past_failures(tmp_path: Path) -> None:
    """Two GPUs of a node that has one are no point; a model that does not fit failed.

    Rates are on their steps.
    """
    pytest.importorskip("optuna", reason="needs the extra optimise")
    done: list[None] = []
    frame = optimise(
        space(tmp_path, CORNERS),
        tmp_path / "o",
        search(24),
        lambda: done.append(None),
    )
    assert len(done) == 24 > len(frame)
    assert not frame.eval(
        "`parallel.tensor_parallel_size` > `cluster.gpus_per_node`"
    ).any()
    failed = frame["model.name"] == "Qwen/Qwen3-235B-A22B"
    assert 0 < failed.sum() < len(frame)
    assert (frame["status"] == "failed").equals(failed)
    assert frame["error"][failed].str.contains("does not fit in memory").all()
    assert (frame["workload.request_rate"] * 2 % 1 == 0).all()


def test_a_space_without_any_point_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs the extra optimise")
    text = CORNERS.replace("[1, 2]", "[2]", 1).replace("[1, 2]", "[1]", 1)
    with pytest.raises(ConfigError, match="no point of the space is allowed"):
        optimise(space(tmp_path, text), tmp_path / "o", search(4))


def test_the_command(tmp_path: Path) -> None:
    """Text and JSON, with the frontier's files."""
    pytest.importorskip("optuna", reason="needs the extra optimise")
    space(tmp_path)
    words = ["optimise", str(tmp_path / "space.toml"), "--trials", "4", "--jobs", "1"]
    words += ["--out", str(tmp_path / "o")]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0
    assert "of them best" in shown.stdout
    assert (tmp_path / "o/pareto-ttft-tbt.png").exists()
    front = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["front"]
    assert front


def test_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"servescope\[optimise\]"):
        optimise(space(tmp_path), tmp_path / "o", search(1))
