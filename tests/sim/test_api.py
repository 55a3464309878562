"""The Python interface against the parts it stands on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim import api
from sim.errors import ConfigError
from sim.runner import run_config
from sim.studies.capacity import Search
from sim.studies.sweep import SweepOptions
from sim.studies.target import Target

SMALL = {"workload.num_requests": 4, "workload.request_rate": 2.0}
ONE = SweepOptions(jobs=1)


def test_run_is_the_run_of_its_settings() -> None:
    """Frames and summary."""
    result = api.run(SMALL)
    assert result.summary == run_config(api.config(SMALL)).summary
    assert len(result.requests) == 4
    with pytest.raises(ConfigError, match="did you mean"):
        api.run({"workload.request_rat": 1.0})


def test_sweep_frontier_and_plot(tmp_path: Path) -> None:
    """From settings to axes; the folder is optional."""
    vary = {"engine.num_layer_groups": [4, 16]}
    points = api.sweep(vary, SMALL, replications=2, options=ONE)
    assert points["engine.num_layer_groups"].tolist() == [4, 4, 16, 16]
    kept = api.sweep(vary, SMALL, replications=2, out=tmp_path, options=ONE)
    assert kept.equals(points)
    found = api.frontier(points, "ttft", "tbt")
    by_hand = points.groupby("engine.num_layer_groups")["mean_ttft_ms"].mean() / 1e3
    assert found.values[:, 0].tolist() == pytest.approx(by_hand.tolist())
    axes = api.plot(found)
    assert axes.get_xlabel() == "Mean TTFT (s)"
    assert api.plot(found, axes) is axes
    drawn = np.concatenate([line.get_xdata() for line in axes.lines])
    assert set(found.values[found.on_group, 0]) <= set(np.asarray(drawn, float))


def test_compare_serves_the_same_requests() -> None:
    """Every rate and policy."""
    points = api.compare([2.0], {"workload.num_requests": 3})
    assert points["scheduler"].tolist() == ["chunked-prefill", "layered-prefill"]
    assert points["workload_sha256"].nunique() == 1


@pytest.mark.long
def test_capacity() -> None:
    """With a target of one's own."""
    target = Target(None, (("mean_ttft_ms", 600.0),))
    found = api.capacity(SMALL, target, search=Search(jobs=1, max_seeds=2))
    assert 0 < found.rate.estimate < 100
