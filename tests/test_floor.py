"""The floor under the number of tests is there and holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.floor import FLOOR, complaint

ROOT = Path(__file__).parents[1]


def test_one_test_too_few_is_told() -> None:
    """With both numbers."""
    assert complaint(FLOOR) is None
    assert f"{FLOOR - 1} tests" in str(complaint(FLOOR - 1))


def test_ci_checks_the_floor() -> None:
    """By the command that a developer can type."""
    assert "python -m tests.floor" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.long
def test_the_whole_suite_is_above_its_floor() -> None:
    """Museum 17: what pytest finds by itself, with the project's settings."""
    words = [sys.executable, "-m", "tests.floor"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
