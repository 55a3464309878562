"""Museum: twenty bugs that others had are planted one by one; each must be caught."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.museum.bugs import BUGS, Bug
from tests.museum.run import ROOT, catches, copy_project, run_tests
from tests.museum.table import TABLE, table_text

SMOKE = (3, 16)
"""Quick ones, tried in the normal suite too."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("museum")
    copy_project(folder)
    return folder


def test_there_are_twenty_and_each_is_one_edit() -> None:
    """Numbers 1 to 20; the text to replace is in its file exactly once."""
    assert [bug.number for bug in BUGS] == list(range(1, 21))
    for bug in BUGS:
        assert (ROOT / bug.file).read_text("utf-8").count(bug.original) == 1, bug.number
        assert bug.original != bug.mutated


def test_the_table_is_that_of_the_list() -> None:
    """Renew it by python -m tests.museum.table."""
    assert TABLE.read_text("utf-8") == table_text()


@pytest.mark.parametrize(
    "bug", [BUGS[n - 1] for n in SMOKE], ids=lambda bug: f"{bug.number}"
)
def test_a_few_bugs_are_caught(bug: Bug, project: Path) -> None:
    caught, said = catches(bug, project)
    assert caught, said


@pytest.mark.long
def test_without_a_bug_the_same_tests_pass(project: Path) -> None:
    """Or they would catch anything."""
    done = run_tests(sorted({bug.test for bug in BUGS}), project)
    assert done.returncode == 0, done.stdout


@pytest.mark.long
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.number}")
def test_every_bug_is_caught(bug: Bug, project: Path) -> None:
    caught, said = catches(bug, project)
    assert caught, said
