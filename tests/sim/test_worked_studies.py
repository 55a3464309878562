"""The shipped studies at a small size: they run, and their tables add up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sim.studies.sweep import SweepOptions
from sim.worked_studies import chunk_and_groups, gpu_choice, what_if_bandwidth
from sim.worked_studies.options import Size

SMALL = Size(duration_s=4.0, replications=2, options=SweepOptions(jobs=1))


@pytest.mark.long
def test_chunk_and_groups(tmp_path: Path) -> None:
    """Both policies on both pairs of metrics, with figures."""
    shift = chunk_and_groups.chunk_and_groups(tmp_path, SMALL)
    assert shift["group"].tolist() == ["chunked-prefill", "layered-prefill"] * 2
    assert shift["points"].tolist() == [5] * 4
    assert (tmp_path / "pareto-ttft-tbt.svg").exists()


@pytest.mark.long
def test_gpu_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break-even price times cost is the same for all."""
    monkeypatch.setattr(gpu_choice, "GPUS", ("h100_sxm", "h200_sxm"))
    small = Size(duration_s=3.0, replications=2, options=SweepOptions(jobs=1))
    table = gpu_choice.gpu_choice(tmp_path, small)
    product = table["break_even_usd_per_gpu_hour"] * table["usd_per_million_tokens"]
    assert product.nunique() == 1 or product.std() < 1e-9
    assert (table["capacity_req_s"] > 0).all()
    assert (tmp_path / "gpu_choice.png").exists()


@pytest.mark.long
def test_what_if_bandwidth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A factor of one is the same machine for both knobs."""
    monkeypatch.setattr(what_if_bandwidth, "SCALES", (1.0, 2.0))
    table = what_if_bandwidth.what_if_bandwidth(tmp_path, SMALL)
    assert table["knob"].tolist() == ["HBM", "HBM", "links", "links"]
    metrics = list(what_if_bandwidth.METRICS)
    one = table[table["factor"] == 1.0][metrics]
    assert one.iloc[0].tolist() == one.iloc[1].tolist()
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "what_if_bandwidth.csv")[metrics], table[metrics]
    )
    assert (tmp_path / "what_if_bandwidth.png").exists()


@pytest.mark.long
def test_tutorial(tmp_path: Path) -> None:
    """It runs as a script, and its answers are those a reader is told to expect."""
    root = Path(__file__).parents[2]
    words = [sys.executable, str(root / "sim/worked_studies/tutorial.py")]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    layers = dict(
        re.findall(r"^(\S+): \d+ prompt tokens in (\d+) layers$", done.stdout, re.M)
    )
    assert layers["chunked-prefill"] == "48"  # of Qwen3-30B-A3B
    assert 1 <= int(layers["layered-prefill"]) < 48
    assert re.search(r"^capacity [1-9]\.\d\d req/s$", done.stdout, re.M)
    faster = re.search(r"^p99 TBT (\S+) % with twice the HBM", done.stdout, re.M)
    assert faster is not None
    assert -50 < int(faster[1]) < 0  # less time, but not half: hosts are no faster
    assert list(tmp_path.iterdir()) == []
