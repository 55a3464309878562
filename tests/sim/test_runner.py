"""Running from a script."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from sim.config_file import load_config
from sim.errors import ConfigError
from sim.runner import prepare, run_config, run_prepared

SMALL = ("workload.num_requests=10", "workload.request_rate=3")


def test_a_prepared_run_starts_afresh_each_time() -> None:
    """Nothing that a run learns changes the next one."""
    prepared = prepare(load_config(None, SMALL))
    first, second = run_prepared(prepared), run_prepared(prepared)
    assert first.summary == second.summary == run_config(prepared.config).summary
    pd.testing.assert_frame_equal(first.requests, second.requests)
    pd.testing.assert_frame_equal(first.timeseries, second.timeseries)
    pd.testing.assert_frame_equal(first.iterations, second.iterations)


def test_each_request_is_announced_once() -> None:
    """Finished or rejected, also in a closed loop."""
    overrides = (
        *SMALL,
        "workload.max_concurrency=2",
        "workload.dataset=random",
        "workload.random_range_ratio=0.5",
        "engine.max_model_len=1024",
    )
    calls: list[None] = []
    result = run_config(load_config(None, overrides), lambda: calls.append(None))
    assert 0 < result.summary["rejected"] < 10
    assert len(calls) == 10


def test_nothing_is_printed_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """That is for the caller to do."""
    monkeypatch.chdir(tmp_path)
    run_config(load_config(None, SMALL))
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("engine.scheduler=orcas", 'engine.scheduler = "orcas"'),
        ("cluster.gpu=v100", 'cluster.gpu = "v100"'),
        ("workload.path=missing.csv", "missing.csv"),
        ("model.name=Qwen/Qwen3-235B-A22B", "does not fit in memory"),
    ],
)
def test_what_cannot_run_is_refused_before_it_runs(override: str, words: str) -> None:
    """Also when the configuration was loaded without the registries."""
    with pytest.raises(ConfigError, match=words):
        prepare(load_config(None, (override,)))
