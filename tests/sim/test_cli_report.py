"""The commands report and export, and what every command has in common."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sim.cli import app
from sim.errors import ConfigError

RUN = ["run", "--set", "workload.num_requests=6", "--quiet", "--out"]


def _invoke(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out") / "run"
    _invoke(*RUN, str(path))
    return path


def test_report_writes_beside_the_results(folder: Path, tmp_path: Path) -> None:
    out = _invoke("report", str(folder))
    assert out == f"written: {folder}/report.html (one file, works offline)\n"
    said = json.loads(
        _invoke("report", str(folder), "--json", "--out", str(tmp_path / "a.html"))
    )
    assert said["runs"] == 1
    assert (tmp_path / "a.html").stat().st_size == said["bytes"]
    assert _invoke("report", str(folder), "--quiet") == ""


def test_export_prints_or_writes(folder: Path, tmp_path: Path) -> None:
    printed = _invoke("export", str(folder), "--format", "inferencex")
    target = tmp_path / "row.json"
    _invoke("export", str(folder), "--format", "inferencex", "--out", str(target))
    assert target.read_text() == printed
    assert json.loads(printed)["model"] == "Qwen/Qwen3-30B-A3B"


def test_an_unknown_format_gets_a_hint(folder: Path) -> None:
    with pytest.raises(ConfigError, match='did you mean "inferencex"'):
        _invoke("export", str(folder), "--format", "inferencx")


def _leaves(group: typer.core.TyperGroup, words: tuple[str, ...] = ()) -> list[str]:
    names = []
    for name, command in group.commands.items():
        here = (*words, name)
        if isinstance(command, typer.core.TyperGroup):
            names += _leaves(command, here)
        else:
            names.append(" ".join(here))
    return names


COMMANDS = _leaves(typer.main.get_command(app))  # type: ignore[arg-type]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_fits_80_columns_and_has_examples(command: str) -> None:
    text = _invoke(*command.split(), "--help")
    assert max(map(len, text.splitlines())) <= 80
    assert "Examples:" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_speaks_json(command: str) -> None:
    """schema and export print their own document already; explore serves a page."""
    text = _invoke(*command.split(), "--help")
    assert "--json" in text or command in {"schema", "export", "explore"}


def test_no_colour_codes_when_piped(folder: Path) -> None:
    for words in (["list"], ["run", "--set", "workload.num_requests=2"]):
        extra = ["--out", str(folder.parent / "again")] if words[0] == "run" else []
        assert "\x1b" not in _invoke(*words, *extra)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["comapre"], "Did you mean 'compare'"),
        (["compare", "--rate", "1"], "--rates"),
        (["calibrate", "shwo"], "Did you mean 'show'"),
    ],
)
def test_a_mistyped_word_gets_a_hint(words: list[str], hint: str) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert hint in result.output
