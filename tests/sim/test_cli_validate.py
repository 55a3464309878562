"""The commands ``validate`` and replay: files, tables, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from calibration.cases import not_simulatable
from sim.cli_validate import replay_command, validate_command
from sim.errors import ConfigError


def test_validate_writes_tables_markdown_and_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validate_command(tmp_path, only="tt340", jobs=1)
    assert {path.name for path in tmp_path.iterdir()} == {
        "cases.csv",
        "summary.csv",
        "cases.md",
        "parity.png",
        "parity.svg",
    }
    cases = pd.read_csv(tmp_path / "cases.csv")
    summary = pd.read_csv(tmp_path / "summary.csv")
    total = summary[summary["by"] == "metric"].iloc[0]
    assert total["mape"] == pytest.approx(cases["error"].abs().mean())
    assert total["bias"] == pytest.approx(cases["error"].mean())
    printed = capsys.readouterr().out
    assert "Cases of validation" in printed
    assert "Cases of calibration" not in printed
    assert all(case.id in printed for case in not_simulatable())


def test_json_is_one_document_with_the_same_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validate_command(tmp_path, only="tt340", jobs=1, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"cases", "summary"}
    written = pd.read_csv(tmp_path / "cases.csv")
    assert [row["error"] for row in document["cases"]] == written["error"].to_list()
    assert document["summary"][0]["spearman"] is None


def test_quiet_prints_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validate_command(tmp_path, only="tt340-*-2048-*", jobs=1, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_no_such_case_is_known_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such case"):
        validate_command(tmp_path / "out", only="nothing")
    assert not (tmp_path / "out").exists()


def test_replay_prints_and_writes_every_statistic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.csv"
    log.write_text(
        "scenario,qps,arrival_s,input_tokens,output_tokens,ttft_s,generation_s\n"
        "chat,1,0.0,100,10,0.05,0.1\n"
    )
    replay_command(tmp_path / "out", log, ["model.name=Qwen/Qwen3-8B"])
    printed = capsys.readouterr().out
    assert "p99 ttft, ms" in printed
    assert "Averages of validation" in printed
    averages = pd.read_csv(tmp_path / "out" / "replay_summary.csv")
    assert averages["n"].to_list() == [1] * 6
    written = pd.read_csv(tmp_path / "out" / "replay.csv")
    assert len(written) == 6
    assert written["measured"][0] == 50.0
