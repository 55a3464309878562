"""Commands through the front door: the words they print and the files they leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from calibration.cases import select_cases
from calibration.engine_profiles import EngineProfile, engine_profile
from calibration.pack_set import read_provenance
from calibration.tables import DATA_DIR
from sim.cli import main
from sim.config_text import json_schema
from tests.fuzz import samples

FITTED = ("layered-prefill-v1", "layered-prefill-v2")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def output(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What a command prints on stdout."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == code
    return capsys.readouterr().out


def test_version_and_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "--version").startswith("servescope ")
    assert json.loads(output(capsys, "schema")) == json_schema()


def test_anchor_shows_each_step_before_and_after(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A row a step, both factors, where it was written; --quiet says nothing."""
    Path("steps.csv").write_bytes(samples.STEPS)
    words = ("calibrate", "anchor", "steps.csv", "--out", "mine.toml")
    printed = output(capsys, *words)
    assert "vllm-0.24 anchored to 4 steps of steps.csv" in printed
    for measured in ("6.500", "7.000", "20.000", "22.500"):
        assert measured in printed
    assert "leave-one-out error" in printed
    assert "use --set calibration.profile=mine.toml" in printed
    assert Path("mine.toml").exists()
    assert output(capsys, *words, "--quiet") == ""


def test_validate_all_adds_the_micro_benchmark(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --only; here of two quick cases, or it would take minutes."""
    quick = select_cases("tt340-*-2048-*")
    monkeypatch.setattr("sim.cli_validate.select_cases", lambda _: quick)
    printed = output(capsys, "validate", "--out", "v", "--jobs", "1")
    micro = pd.read_csv("v/micro_benchmark.csv")
    assert "One 8192-token prompt" in printed
    for row in micro.to_dict("records"):
        assert f"{row['profile']}, chunk {row['chunk_tokens']}" in printed
    assert (micro["predicted_ms"] / micro["measured_ms"] - 1).to_list() == (
        pytest.approx(micro["error"].to_list(), nan_ok=True)
    )


def test_replay_of_a_log_prints_its_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """Every metric and statistic of every run."""
    Path("log.csv").write_bytes(samples.LLM_D)
    words = ("validate", "--replay", "log.csv", "--set", "model.name=Qwen/Qwen3-8B")
    printed = output(capsys, *words, "--out", "r")
    assert "chat 4" in printed
    frame = pd.read_csv("r/replay.csv")
    assert set(frame["run"]) == {"chat 4", "code 8"}
    assert set(frame["metric"]) == {"ttft", "tpot"}
    assert (frame["predicted"] > 0).all()
    assert output(capsys, *words, "--out", "r", "--quiet") == ""


def test_fit_prints_shipped_and_fitted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table and JSON; the fits themselves, which take minutes, have their own tests."""
    shipped = {name: engine_profile(name) for name in FITTED}

    def fit_host(case: str) -> EngineProfile:
        return replace(engine_profile("vllm-0.24"), name="vllm-0.24", description=case)

    monkeypatch.setattr("sim.cli_validate.fit_profiles", lambda: shipped)
    monkeypatch.setattr("sim.cli_validate.fit_host", fit_host)
    rows = json.loads(output(capsys, "calibrate", "fit", "--json"))
    assert {row["profile"] for row in rows} == {*FITTED, "vllm-0.24"}
    assert all(row["shipped"] == row["fitted"] for row in rows)
    printed = output(capsys, "calibrate", "fit")
    assert "Engine profiles, fitted from measured.toml" in printed
    for row in rows:
        assert row["constant"] in printed


@pytest.mark.long
def test_show_of_all_gpus_is_a_summary(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row a pack, one matrix of errors; here of one small GPU, to be quick."""
    packs = {k: e for k, e in read_provenance(DATA_DIR).items() if "a100" in k}
    monkeypatch.setattr("sim.cli_calibrate_show.read_provenance", lambda _: packs)
    printed = output(capsys, "calibrate", "show")
    assert "a100" in printed.lower()
    assert "MoE rooflines: fit error" in " ".join(printed.split())
    assert output(capsys, "calibrate", "show", "--gpu", "a100", "--quiet") == ""


def test_profile_without_torch_or_gpu_is_one_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Exit 2, nothing written."""
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "profile", "--out", "p"])
    assert ended.value.code == 2
    assert capfd.readouterr().err.startswith("error: calibrate profile: ")
    assert not Path("p").exists()
