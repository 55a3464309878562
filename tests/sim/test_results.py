"""Results: identities between the files of a run, and what a crash leaves."""

from __future__ import annotations

import gzip
import io
import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sim.build_cluster import build_cluster
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.metrics import token_times_ns
from sim.results import RunResult, run_result, write_run
from sim.runner import PreparedRun, prepare, run_config
from sim.shell.cluster import ClusterRun
from sim.units import NS_PER_S

# Long prompts are rejected, and two small caches make decodes lose theirs.
BUSY = (
    "workload.num_requests=30",
    "workload.request_rate=3",
    "workload.dataset=random",
    "workload.random_input_len=8000",
    "workload.random_output_len=400",
    "workload.random_range_ratio=0.8",
    "engine.max_model_len=12000",
    "engine.kv_cache_tokens=24000",
    "parallel.replicas=2",
    "cluster.nodes=2",
    "slo.ttft_ms=4000",
    "slo.itl_ms=40",
)
VLLM_KEYS = {
    *("label", "model_id", "num_prompts", "request_rate", "burstiness"),
    *("max_concurrency", "duration", "completed", "failed", "total_input_tokens"),
    *("total_output_tokens", "request_throughput", "request_goodput"),
    *("output_throughput", "total_token_throughput"),
    *(
        f"{statistic}_{metric}_ms"
        for metric in ("ttft", "tpot", "itl", "e2el")
        for statistic in ("mean", "median", "std", "p99")
    ),
}
"""Keys of ``vllm bench serve --save-result`` that a simulation can know."""
OUR_KEYS = {
    *("fidelity", "overlap", "kernel_events", "iterations_s", "closed_form_s"),
    *("fidelity_difference", "hidden_communication_fraction"),
    *(f"gpu_{part}_bytes" for part in ("hbm", "weight", "kv_cache")),
    *(f"gpu_{part}_bytes" for part in ("activation", "parked")),
    *("prefix_cache_hits", "prefix_cache_hit_rate"),
    *(
        "replicas",
        "replica_starts",
        "retries",
        "mean_replicas_on",
        "mean_replicas_paid",
    ),
    *("kv_transfers", "kv_transfer_bytes", "prefill_replicas", "energy_per_gpu_j"),
    *(
        f"p{percentile}_{metric}_ms"
        for metric in ("ttft", "tpot", "itl", "e2el")
        for percentile in (5, 10, 25, 50, 75, 90, 95)
    ),
    *("rejected", "slo_attainment", "slo_ttft_attainment", "slo_itl_attainment"),
    *("slo_ttft_ms", "slo_tpot_ms", "slo_itl_ms", "slo_e2el_ms", "energy_j"),
    *(f"energy_{part}_j" for part in ("run", "wait", "hbm", "flop", "idle")),
    *("energy_per_output_token_j", "energy_per_token_j", "mean_power_w"),
    *("hbm_bytes", "expert_weight_bytes", "other_weight_bytes", "kv_bytes"),
    *("activation_bytes", "link_bytes", "flops", "iterations", "preemptions"),
    *(f"extrapolated_{k}_fraction" for k in ("experts", "attention", "head")),
    *("extrapolated_fraction", "kv_cache_tokens", "usd_per_million_output_tokens"),
    *("usd_per_million_tokens", "seed", "scheduler", "profile", "gpu", "num_gpus"),
    *("what_if", "what_if_kernels"),
    *("dataset", "config_sha256", "workload_sha256", "calibration_sha256", "version"),
}


@dataclass(frozen=True)
class Case:
    """A run, in memory and read back from its files."""

    prepared: PreparedRun
    run: ClusterRun
    result: RunResult
    folder: Path

    @property
    def summary(self) -> dict[str, float]:
        return json.loads((self.folder / "result.json").read_text())

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.csv.gz", keep_default_na=True)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    prepared = prepare(load_config(None, BUSY))
    cluster = build_cluster(prepared.config, prepared.machine, prepared.workload)
    run = cluster.run(prepared.workload.requests)
    result = run_result(prepared.config, prepared.machine, prepared.workload, run)
    folder = tmp_path_factory.mktemp("busy")
    write_run(folder, result, iterations=True)
    return Case(prepared, run, result, folder)


def test_the_case_has_everything_in_it(case: Case) -> None:
    """Rejections, preemptions, missed limits and two busy replicas."""
    requests = case.table("requests")
    assert requests["rejected"].notna().sum() > 0
    assert requests["preemptions"].sum() > 0
    assert 0 < requests["met_slo"].sum() < requests["finish_ns"].notna().sum()
    assert set(case.table("iterations")["replica"]) == {0, 1}


def test_result_has_the_keys_of_vllm_and_ours(case: Case) -> None:
    """No more and no fewer."""
    assert set(case.summary) == VLLM_KEYS | OUR_KEYS


def test_end_to_end_is_ttft_and_every_gap(case: Case) -> None:
    """For each request, from its token times one by one, in integers."""
    rows = case.table("requests").set_index("id")
    ends = [np.asarray(log.decode_end_ns) for log in case.run.logs]
    checked = 0
    for record in case.run.records:
        if record.rejected is not None:
            continue
        row = rows.loc[record.request.id]
        times = token_times_ns(record, ends[record.replica]).tolist()
        gaps = [late - early for early, late in pairwise(times)]
        assert len(times) == row["output_tokens"]
        assert times[0] == row["first_token_ns"]
        ttft_ns = times[0] - record.arrival_ns
        assert row["ttft_ms"] == ttft_ns / 1e6
        assert row["e2el_ms"] == (ttft_ns + sum(gaps)) / 1e6
        assert row["max_itl_ms"] == max(gaps) / 1e6
        assert row["tpot_ms"] == pytest.approx(sum(gaps) / len(gaps) / 1e6)
        checked += 1
    assert checked == case.summary["completed"]


def test_totals_are_sums_over_requests(case: Case) -> None:
    """Tokens count for completed requests only, as in vLLM."""
    requests, summary = case.table("requests"), case.summary
    done = requests[requests["finish_ns"].notna()]
    assert summary["num_prompts"] == len(requests) == 30
    assert summary["completed"] == len(done)
    assert summary["failed"] == summary["rejected"] == len(requests) - len(done)
    assert summary["total_input_tokens"] == done["prompt_tokens"].sum()
    assert summary["total_output_tokens"] == requests["output_tokens"].sum()
    assert summary["preemptions"] == requests["preemptions"].sum()
    assert summary["duration"] == done["finish_ns"].max() / NS_PER_S
    for metric in ("ttft", "e2el", "tpot"):
        values = done[f"{metric}_ms"].dropna()
        assert summary[f"mean_{metric}_ms"] == pytest.approx(values.mean())
        assert summary[f"p99_{metric}_ms"] == pytest.approx(values.quantile(0.99))
        assert summary[f"std_{metric}_ms"] == pytest.approx(values.std(ddof=0))


def test_goodput_counts_requests_that_meet_every_limit(case: Case) -> None:
    """Times the duration it is their number; a rejected request is a missed one."""
    requests, summary = case.table("requests"), case.summary
    good = (requests["ttft_ms"] <= 4000) & (requests["max_itl_ms"] <= 40)
    assert (requests["met_slo"] == good).all()
    assert summary["request_goodput"] * summary["duration"] == pytest.approx(good.sum())
    assert summary["slo_attainment"] == good.mean()
    assert summary["slo_ttft_attainment"] == (requests["ttft_ms"] <= 4000).mean()
    assert summary["slo_itl_attainment"] == (requests["max_itl_ms"] <= 40).mean()


def test_power_integrates_to_energy(case: Case) -> None:
    """Bins are a second wide, the last one ends with the run."""
    series, summary = case.table("timeseries"), case.summary
    width_s = np.minimum(1.0, summary["duration"] - series["time_s"])
    energy_j = math.fsum(series["power_w"] * width_s)
    assert energy_j == pytest.approx(summary["energy_j"], rel=1e-9)
    mean_w = summary["mean_power_w"]
    assert mean_w * summary["duration"] == pytest.approx(energy_j, rel=1e-9)


def test_energy_is_iterations_and_idling_between_them(case: Case) -> None:
    """Parts add up, and idling replicas draw idle power to the end of the run."""
    iterations, summary = case.table("iterations"), case.summary
    busy_ns = (iterations["end_ns"] - iterations["start_ns"]).sum()
    idle_s = 2 * summary["duration"] - busy_ns / NS_PER_S
    power = case.prepared.machine.power
    assert summary["energy_idle_j"] == pytest.approx(
        idle_s * power.idle_w * power.num_gpus, rel=1e-9
    )
    used_j = summary["energy_j"] - summary["energy_idle_j"]
    assert used_j == pytest.approx(math.fsum(iterations["energy_j"]), rel=1e-12)
    parts = ("run", "wait", "hbm", "flop", "idle")
    assert summary["energy_j"] == pytest.approx(
        sum(summary[f"energy_{part}_j"] for part in parts), rel=1e-12
    )
    traffic = ("expert_weight", "other_weight", "kv", "activation")
    assert summary["hbm_bytes"] == sum(summary[f"{name}_bytes"] for name in traffic)
    assert summary["iterations"] == len(iterations)


def test_cost_is_gpu_hours_by_tokens(case: Case) -> None:
    """(GPUs x $/h / 3600) / (tokens/s) x 1e6, for all GPUs of both replicas."""
    summary = case.summary
    assert summary["num_gpus"] == 4
    usd_per_s = 4 * 2.5 / 3600
    for key, rate in (
        ("usd_per_million_output_tokens", "output_throughput"),
        ("usd_per_million_tokens", "total_token_throughput"),
    ):
        assert summary[key] == pytest.approx(usd_per_s / summary[rate] * 1e6)


def test_timeseries_is_the_iteration_under_way(case: Case) -> None:
    """Against a search through all iterations for every second."""
    series, iterations = case.table("timeseries"), case.table("iterations")
    blocks = 2 * case.prepared.machine.num_blocks
    for row in series.itertuples():
        now = row.time_s * NS_PER_S
        current = iterations[
            (iterations["start_ns"] <= now) & (iterations["end_ns"] > now)
        ]
        assert row.running == current["running"].sum()
        assert row.waiting == current["waiting"].sum()
        assert row.kv_cache_usage_perc == current["used_blocks"].sum() / blocks
    assert series["kv_cache_usage_perc"].between(0, 1).all()
    assert len(series) == math.ceil(case.summary["duration"])


def test_nothing_served_is_no_crash(tmp_path: Path) -> None:
    """Every request too long: no time passes and means are unknown."""
    overrides = (
        "workload.dataset=random",
        "workload.random_input_len=9000",
        "workload.num_requests=3",
        "engine.max_model_len=8192",
    )
    result = run_config(load_config(None, overrides))
    write_run(tmp_path, result, iterations=True)
    summary = json.loads((tmp_path / "result.json").read_text())
    assert (summary["completed"], summary["rejected"]) == (0, 3)
    assert summary["slo_attainment"] == summary["duration"] == summary["energy_j"] == 0
    unknown = ("mean_ttft_ms", "request_throughput", "energy_per_token_j")
    assert [summary[key] for key in unknown] == [None, None, None]
    assert set(summary) == VLLM_KEYS | OUR_KEYS
    requests = pd.read_csv(tmp_path / "requests.csv.gz")
    assert requests["rejected"].str.contains("9000 tokens").all()
    assert len(pd.read_csv(tmp_path / "timeseries.csv.gz")) == 0


def test_no_limits_no_goodput() -> None:
    """Null, as in vLLM without --goodput."""
    none = ("slo.ttft_ms=none", "slo.itl_ms=none")
    summary = run_config(load_config(None, ("workload.num_requests=2", *none))).summary
    keys = ("request_goodput", "slo_attainment", "slo_ttft_attainment", "slo_ttft_ms")
    assert [summary[key] for key in keys] == [None] * 4


def test_rate_is_what_the_users_offer(tmp_path: Path) -> None:
    """ "inf" when all wait at once, null when a trace says when."""
    trace = tmp_path / "trace.csv"
    trace.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,9,1\n1,9,2\n")
    cases = {
        1.5: ["workload.request_rate=1.5", "workload.num_requests=2"],
        "inf": ["workload.max_concurrency=1", "workload.num_requests=2"],
        None: [f"workload.path={trace}"],
    }
    for rate, overrides in cases.items():
        summary = run_config(load_config(None, overrides)).summary
        assert summary["request_rate"] == rate
    assert summary["dataset"] == "trace.csv"


def test_written_configuration_runs_again_to_the_same_result(case: Case) -> None:
    """config.toml holds all that the result depends on."""
    again = run_config(load_config(case.folder / "config.toml"))
    assert again.summary == case.result.summary
    pd.testing.assert_frame_equal(again.requests, case.result.requests)


def test_integers_survive_the_file(case: Case) -> None:
    """Nanoseconds are written as integers although some are missing."""
    text = gzip.decompress((case.folder / "requests.csv.gz").read_bytes()).decode()
    rows = pd.read_csv(io.StringIO(text), dtype=str)
    finish = [r.finish_ns for r in case.run.records]
    assert rows["finish_ns"].tolist() == [
        pytest.approx(math.nan, nan_ok=True) if ns is None else str(ns) for ns in finish
    ]


def test_result_json_means_complete(case: Case, tmp_path: Path) -> None:
    """A run that cannot write a file leaves no result.json, not even an old one."""
    write_run(tmp_path, case.result, iterations=True)
    blocked = tmp_path / "timeseries.csv.gz"
    blocked.unlink()
    blocked.mkdir()
    with pytest.raises(ConfigError, match=r"timeseries\.csv\.gz: cannot be written"):
        write_run(tmp_path, case.result)
    assert not (tmp_path / "result.json").exists()
    blocked.rmdir()
    write_run(tmp_path, case.result)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "config.toml",
        "result.json",
        "requests.csv.gz",
        "timeseries.csv.gz",
        "steps.csv.gz",
    }
