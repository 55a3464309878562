"""When a load is served well enough; hand-worked."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sim.studies.store import Record
from sim.studies.target import Target, parse_target

SUMMARY: dict[str, Any] = {
    "slo_attainment": 0.99,
    "p99_ttft_ms": 1500.0,
    "p99_itl_ms": 45.0,
    "mean_tpot_ms": None,
    "failed": 0,
}


def record(summary: dict[str, Any] | None) -> Record:
    return Record("key", {}, summary, None if summary else "did not fit")


def test_slack_is_of_the_tightest_bound() -> None:
    """TTFT is a quarter under 2 s, ITL a tenth under 50 ms, attainment a tenth over."""
    limits = (("p99_ttft_ms", 2000.0), ("p99_itl_ms", 50.0))
    assert Target(None, limits[:1]).slack(record(SUMMARY)) == pytest.approx(0.25)
    assert Target(None, limits).slack(record(SUMMARY)) == pytest.approx(0.1)
    assert Target(0.9, limits[:1]).slack(record(SUMMARY)) == pytest.approx(0.1)
    assert Target(None, (("p99_itl_ms", 30.0),)).slack(record(SUMMARY)) == -0.5


def test_what_did_not_happen_misses_every_target() -> None:
    """A failed run, a refused request that a limit cannot see, a metric of nothing."""
    limit = Target(None, (("p99_ttft_ms", 2000.0),))
    assert limit.slack(record(None)) == -math.inf
    assert limit.slack(record(SUMMARY | {"failed": 1})) == -math.inf
    assert Target(0.9).slack(record(SUMMARY | {"failed": 1})) == pytest.approx(0.1)
    assert Target(None, (("mean_tpot_ms", 9.0),)).slack(record(SUMMARY)) == -math.inf


def test_the_command_lines_target() -> None:
    """Limits alone decide; without any, 90 % of requests within [slo]."""
    assert parse_target(None, []) == Target(0.9)
    only = parse_target(None, ["p99_ttft_ms = 2000"])
    assert only == Target(None, (("p99_ttft_ms", 2000.0),))
    assert only.text() == "p99_ttft_ms <= 2000"
    both = parse_target(0.955, ["p99_itl_ms=50"])
    assert both.text() == "SLO attainment >= 95.5 % and p99_itl_ms <= 50"
