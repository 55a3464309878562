"""What is recorded changes what is kept, not one number."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.config_file import load_config
from sim.recording import Recording
from sim.results import write_run
from sim.runner import run_config

_SMALL = ["workload.num_requests=6", "workload.request_rate=4"]


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("recording", list(Recording))
def test_levels_keep_less_of_the_same(
    tmp_path: Path, recording: Recording, check: bool
) -> None:
    """Equal summaries; the tables and files that are there are those of a full run."""
    config = load_config(None, _SMALL)
    full = run_config(config)
    result = run_config(config, recording=recording, check=check)
    assert result.summary == full.summary
    assert result.requests.equals(full.requests) == recording.requests
    assert result.timeseries.equals(full.timeseries) == recording.iterations
    assert result.iterations.equals(full.iterations) == recording.iterations
    write_run(tmp_path, full, iterations=True)
    write_run(tmp_path, result)
    left = {path.name for path in tmp_path.iterdir()}
    assert ("requests.csv.gz" in left) == recording.requests
    assert ("timeseries.csv.gz" in left) == recording.iterations
    assert ("steps.csv.gz" in left) == recording.iterations
    assert {"result.json", "config.toml"} <= left


def test_a_row_per_iteration_needs_their_recording(tmp_path: Path) -> None:
    """One clear line, and nothing is written."""
    out = tmp_path / "out"
    words = ["run", "--record", "summary", "--iterations", "--out", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code != 0
    assert "allowed: --record iterations" in str(result.exception)
    assert not out.exists()
