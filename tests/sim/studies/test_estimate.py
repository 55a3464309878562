"""How many requests a point sends, and what an estimate does when it cannot know."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.config_file import load_config
from sim.studies.estimate import estimated_s, expected_requests
from sim.studies.key import point_key
from sim.studies.worker import SweepPoint

TRACE = "arrived_at,num_prefill_tokens,num_decode_tokens\n" + "".join(
    f"{k},64,2\n" for k in range(7)
)


@pytest.mark.parametrize(
    ("settings", "requests"),
    [
        (["workload.num_requests=30"], 30),
        (["workload.duration_s=100", "workload.request_rate=1.5"], 150),
        (["workload.num_requests=40", "workload.request_rate=99"], 40),
        (["workload.path=trace.csv"], 7),
        (["workload.path=trace.csv", "workload.num_requests=3"], 3),
    ],
)
def test_requests_are_those_of_the_tightest_bound(
    settings: list[str],
    requests: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trace.csv").write_text(TRACE)
    assert expected_requests(load_config(None, settings)) == pytest.approx(requests)


def test_nothing_takes_no_time_and_what_cannot_run_an_unknown_one() -> None:
    assert estimated_s([]) == 0.0
    big = load_config(None, ["model.name=Qwen/Qwen3-235B-A22B"])
    assert estimated_s([SweepPoint(point_key(big), big)]) is None
