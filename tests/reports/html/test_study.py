"""Reading result directories, good and bad."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from reports.html.study import Run, load_text, read_study
from sim.errors import ConfigError


def test_a_comparison(compared: Path) -> None:
    study = read_study([compared])
    assert study.policies == ["chunked-prefill", "layered-prefill"]
    assert study.loads == ["1 req/s", "1.3 req/s", "1.6 req/s"]
    assert (study.baseline, study.candidate) == ("chunked-prefill", "layered-prefill")
    assert study.headline == "1.3 req/s"
    assert len(study.compared) == 6
    assert len(study.runs) > 10
    run = study.run("layered-prefill", "1.6 req/s")
    assert isinstance(run, Run)
    assert run.config["engine.scheduler"] == "layered-prefill"
    assert study.run("orca", "1.6 req/s") is None


def test_one_run_has_nothing_to_compare_with(compared: Path) -> None:
    study = read_study([compared / "layered-prefill" / "rate-1.30"])
    assert study.candidate is None
    assert study.headline == "1.3 req/s"
    assert study.paired.empty


def test_runs_that_share_a_policy_are_named_by_folder(compared: Path) -> None:
    knob = compared / "layered-prefill" / "tradeoff" / "num_layer_groups-2"
    study = read_study([knob, compared / "layered-prefill" / "rate-1.30"])
    assert [run.name for run in study.runs] == ["num_layer_groups-2", "rate-1.30"]
    again = read_study([knob, knob])
    assert len({run.name for run in again.runs}) == 2


def test_a_directory_without_results(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no result\.json and no compare\.csv"):
        read_study([tmp_path])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("result.json", "{", r"result\.json: cannot be read: Expecting"),
        ("result.json", "[]", r"result\.json: expected a JSON object"),
        ("result.json", "{}", r"result\.json: missing key\(s\) model_id, scheduler"),
        ("config.toml", "a = ", r"config\.toml: cannot be read: Invalid value"),
        ("config.toml", None, r"config\.toml: cannot be read: No such file"),
    ],
)
def test_a_bad_file_is_named(
    compared: Path, tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(compared / "layered-prefill" / "rate-1.30", folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_study([folder])


def test_a_comparison_that_lost_a_run(compared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    shutil.copytree(compared, folder)
    (folder / "layered-prefill" / "rate-1.30" / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"1 of its runs have no result\.json"):
        read_study([folder])


def test_loads_in_words(compared: Path) -> None:
    path = compared / "layered-prefill" / "rate-1.30" / "result.json"
    summary = json.loads(path.read_text())
    assert load_text(summary) == "1.3 req/s"
    assert load_text({**summary, "request_rate": "inf"}) == "all at once"
    assert load_text({**summary, "request_rate": None}) == "times of the trace"
    assert load_text({**summary, "max_concurrency": 8}) == "8 clients"
