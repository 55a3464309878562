"""Planting a bug in a copy of the project and running the test that must see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.museum.bugs import Bug

ROOT = Path(__file__).parents[2]
PARTS = (
    *("sim", "workloads", "calibration", "reports", "tests", "pyproject.toml"),
    *("README.md", ".ci"),
)
LONGEST_S = 120.0


def copy_project(folder: Path) -> None:
    """Copy what the tests need."""
    ignore = shutil.ignore_patterns("__pycache__", "gallery")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=ignore)
        else:
            shutil.copy(source, folder / part)


@contextmanager
def planted(bug: Bug, project: Path) -> Iterator[None]:
    """The project with the bug in it.

    Raises:
        ValueError: If the original text is not there exactly once: the list is stale.
    """
    file = project / bug.file
    text = file.read_text(encoding="utf-8")
    if text.count(bug.original) != 1:
        raise ValueError(f"bug {bug.number}: {bug.file} changed; renew tests/museum")
    file.write_text(text.replace(bug.original, bug.mutated), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(text, encoding="utf-8")


def run_tests(tests: list[str], project: Path) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy of the project in a process of their own."""
    words = [
        sys.executable,
        "-B",
        "-m",
        "pytest",
        "-q",
        "-x",
        "-n0",
        "--tb=line",
        "-m",
        "",
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        [*words, "-p", "no:cacheprovider", *tests],
        cwd=project,
        env=environment | {"PYTHONPATH": str(project), "COVERAGE_PROCESS_START": ""},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )


def catches(bug: Bug, project: Path) -> tuple[bool, str]:
    """Whether the bug's test fails on it, and what it said."""
    with planted(bug, project):
        done = run_tests([bug.test], project)
    failed = f"FAILED {bug.test.partition('[')[0]}"
    return done.returncode == 1 and failed in done.stdout, done.stdout + done.stderr
