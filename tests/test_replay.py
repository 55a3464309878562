"""After a failure of any kind, the line that is printed repeats it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETTINGS = """
[tool.pytest.ini_options]
addopts = "-q -m 'not long'"
markers = ["long: slow"]
"""
FAILING = """
import pytest
from hypothesis import Phase, given, settings, strategies as st

@pytest.mark.parametrize("word", ["it's", "a b"])
def test_plain(word):
    assert word == "a b"

@pytest.fixture
def broken():
    raise OSError("no fixture")

def test_error(broken):
    pass

@settings(phases=[Phase.generate])  # the first that fails, as drawn
@given(st.integers(0, 10**9))
def test_property(number):
    assert number % 5, number
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Tests that fail, reported by the conftest of this suite."""
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_it.py").write_text(FAILING)
    (tmp_path / "test_import.py").write_text("import no_such_module\n")
    return tmp_path


def pytest_in(project: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (1, 2), done.stdout + done.stderr
    return done.stdout


def summaries(said: str) -> set[str]:
    """What failed and why, as pytest's short summary says it."""
    return set(re.findall(r"^((?:FAILED|ERROR) .+?)(?: - .*)?$", said, re.M))


def replays(said: str) -> list[list[str]]:
    lines = re.findall(r"^replay: python -m pytest (.*)$", said, re.M)
    return [shlex.split(line) for line in lines]


LONG = pytest.param(("-m", "long", "--hypothesis-seed=5"), marks=pytest.mark.long)


@pytest.mark.long
@pytest.mark.parametrize("session", [(), LONG], ids=["normal", "long"])
def test_every_failure_is_repeated_by_its_line(
    session: tuple[str, ...], project: Path
) -> None:
    """A test, a parameter with a quote, a fixture, a property and a whole module."""
    said = pytest_in(project, "--continue-on-collection-errors", *session)
    failed, lines = summaries(said), replays(said)
    assert len(lines) == len(failed) == (2 if session else 4)
    falsified = re.findall(r"number=(\d+)", said)
    again = [pytest_in(project, *words) for words in lines]
    assert set().union(*map(summaries, again)) == failed
    assert all(len(summaries(text)) == 1 for text in again)
    repeated = [text for text in again if "number=" in text]
    assert [set(re.findall(r"number=(\d+)", t)) for t in repeated] == [set(falsified)]


DRAWN = """
from hashlib import md5
from hypothesis import given, settings, strategies as st

drawn = []

@settings(max_examples=500)
@given(st.integers(0, 10**6), st.floats(0, 1e9), st.text(max_size=9))
def test_draws(whole, number, text):
    drawn.append(repr((whole, number, text)))

def test_says_what():
    raise AssertionError(f"drawn: {md5(''.join(drawn).encode()).hexdigest()}")
"""


@pytest.mark.long
def test_a_seed_draws_the_same_whatever_else_is_tested(project: Path) -> None:
    """Constants of modules that other tests import are drawn, too."""
    (project / "test_a.py").write_text(
        "import calibration.kernels.model_kernels, sim.explore\n"
    )
    (project / "test_drawn.py").write_text(DRAWN)
    seed = ("-m", "", "--hypothesis-seed=5")
    alone, after = (
        re.findall(r"drawn: (\w+)", pytest_in(project, *seed, *files))
        for files in (["test_drawn.py"], ["test_a.py", "test_drawn.py"])
    )
    assert alone
    assert alone == after
