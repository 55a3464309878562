"""Runs in other tools' formats: their keys and units, by sums done another way."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from reports.exchange import FORMATS
from reports.html.study import Run, read_study
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.results import write_run
from sim.runner import run_config

# What `vllm bench serve --save-result --save-detailed` writes (vLLM 0.18), its server's
# texts and single token gaps apart, which a simulation does not have.
VLLM_BENCH_KEYS = {
    *("date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id"),
    *("num_prompts", "request_rate", "burstiness", "max_concurrency", "duration"),
    *("completed", "failed", "total_input_tokens", "total_output_tokens"),
    *("request_throughput", "request_goodput", "output_throughput"),
    *("total_token_throughput", "input_lens", "output_lens", "ttfts", "errors"),
    *("start_times", "latencies"),
    *(
        f"{statistic}_{metric}_ms"
        for statistic in ("mean", "median", "std", "p99")
        for metric in ("ttft", "tpot", "itl", "e2el")
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed loop of four clients, with one prompt too long to serve."""
    settings = (
        *("workload.num_requests=20", "workload.max_concurrency=4"),
        *("workload.dataset=random", "workload.random_input_len=900"),
        *("workload.random_output_len=40", "workload.random_range_ratio=0.9"),
        *("engine.max_model_len=1500", "seed=3"),
    )
    path = tmp_path_factory.mktemp("run")
    write_run(path, run_config(load_config(None, settings)))
    return path


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return read_study([folder]).runs[0]


def test_vllm_bench(run: Run, folder: Path) -> None:
    document = json.loads(FORMATS["vllm-bench"](run))
    assert set(document) >= VLLM_BENCH_KEYS
    assert re.fullmatch(r"\d{8}-\d{6}", document["date"])
    assert "rejected" in json.dumps(document["errors"]) or document["rejected"] >= 0
    served = [not error for error in document["errors"]]
    assert sum(served) == document["completed"]
    ttfts = [t for t, ok in zip(document["ttfts"], served, strict=True) if ok]
    mean_ms = 1e3 * sum(ttfts) / len(ttfts)
    assert mean_ms == pytest.approx(document["mean_ttft_ms"])
    assert sum(document["output_lens"]) == document["total_output_tokens"]
    lens = zip(document["input_lens"], served, strict=True)
    assert sum(n for n, ok in lens if ok) == document["total_input_tokens"]


def test_inferencex(run: Run) -> None:
    """Units of its public rows: seconds, tokens/s for interactivity, per GPU."""
    row = json.loads(FORMATS["inferencex"](run))
    summary = run.summary
    assert (row["hw"], row["tp"], row["conc"]) == ("h100", 2, 4)
    assert row["mean_ttft"] == summary["mean_ttft_ms"] / 1000
    assert row["median_intvty"] * row["median_tpot"] == pytest.approx(1)
    both = row["tput_per_gpu"] * 2
    assert both == pytest.approx(summary["total_token_throughput"])
    assert row["simulated"] is True
    joules = row["joules_per_output_token"] * summary["total_output_tokens"]
    assert joules == pytest.approx(summary["energy_j"])


def test_openmetrics(run: Run, folder: Path) -> None:
    """Each sample is a cell of the time series; the grammar is that of OpenMetrics."""
    lines = FORMATS["openmetrics"](run).splitlines()
    frame = pd.read_csv(folder / "timeseries.csv.gz")
    assert lines[-1] == "# EOF"
    sample = re.compile(
        r'(vllm|servescope):\w+\{model_name="[^"]*",engine="0"\} [\d.e+-]+ \d+'
    )
    samples = [line for line in lines if not line.startswith("#")]
    assert all(sample.fullmatch(line) for line in samples)
    assert len(samples) == 4 * len(frame)
    running = [
        float(line.split()[-2])
        for line in samples
        if line.startswith("vllm:num_requests_running{")
    ]
    assert running == frame["running"].to_list()
    for name in ("running", "waiting"):
        assert f"# TYPE vllm:num_requests_{name} gauge" in lines


def test_a_hostile_model_name_stays_a_label(run: Run) -> None:
    from dataclasses import replace  # noqa: PLC0415

    summary = {**run.summary, "model_id": 'a"} 1\nb\\'}
    lines = FORMATS["openmetrics"](replace(run, summary=summary)).splitlines()
    name = r"a\"} 1\nb\\"
    assert lines[2].startswith(f'vllm:num_requests_running{{model_name="{name}",')


def test_a_missing_table_is_named(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    (copy / "timeseries.csv.gz").unlink()
    with pytest.raises(ConfigError, match=r"timeseries\.csv\.gz: no such file"):
        FORMATS["openmetrics"](read_study([copy]).runs[0])
