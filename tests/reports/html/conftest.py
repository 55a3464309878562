"""A small real comparison and its page, made once for the tests of a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.html.page import write_page
from reports.html.study import read_study
from sim.compare import compare, plan_points

SMALL = ("workload.num_requests=20", "engine.max_model_len=9000")


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``servescope compare --rates 1,1.3,1.6`` writes, on 20 requests."""
    folder = tmp_path_factory.mktemp("comparison")
    compare(plan_points(None, SMALL, rates=[1.0, 1.3, 1.6]), folder, jobs=1)
    return folder


@pytest.fixture(scope="session")
def page(compared: Path) -> Path:
    """The report of the comparison."""
    path = compared / "report.html"
    write_page(read_study([compared]), path)
    return path
