"""Comparisons: which points are planned, and what paired differences mean."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports.frame import read_compare
from sim.compare import DEFAULT_PROFILE, DEFAULT_RATES, compare, plan_points
from sim.errors import ConfigError
from sim.paired import paired_differences
from sim.statistics.intervals import BATCHES
from sim.statistics.intervals import batch_means_half_width as half_width
from workloads.streams import stream

SMALL = ("workload.num_requests=24",)
LENGTHS = "num_prefill_tokens,num_decode_tokens\n100,2\n200,3\n"


def folders(*overrides: str, **options: object) -> list[str]:
    plan = plan_points(None, overrides, **options)  # type: ignore[arg-type]
    return [p.folder for p in plan.points]


def test_main_job_is_two_policies_at_nine_rates() -> None:
    """Chunked against layered prefill, 1.0 to 1.8 requests per second."""
    points = plan_points(None).points
    assert len(points) == 18
    assert [p.config.workload.request_rate for p in points[::2]] == list(DEFAULT_RATES)
    assert [p.folder for p in points[6:8]] == [
        "chunked-prefill/rate-1.30",
        "layered-prefill/rate-1.30",
    ]
    assert {p.config.calibration.profile for p in points} == {DEFAULT_PROFILE}
    assert [p.config.engine.token_budget for p in points[:2]] == [512, 8192]


def test_configuration_over_defaults_and_arguments_over_both() -> None:
    """For the rate and for the profile."""
    own = ("workload.request_rate=2.5", "calibration.profile=vllm-0.24")
    points = plan_points(None, own).points
    assert [p.load for p in points] == ["rate-2.50", "rate-2.50"]
    assert points[0].config.calibration.profile == "vllm-0.24"
    asked = plan_points(
        None, own, rates=(0.5, 0.125), profile="layered-prefill-v2"
    ).points
    assert [p.load for p in asked[::2]] == ["rate-0.50", "rate-0.125"]
    assert asked[0].config.calibration.profile == "layered-prefill-v2"


def test_repeated_names_and_rates_count_once() -> None:
    """So that no two points share a folder."""
    found = folders(*SMALL, schedulers=("orca", "orca"), rates=(1.0, 1.0, math.inf))
    assert found == ["orca/rate-1.00", "orca/rate-inf"]


def test_users_without_a_rate_are_one_load(tmp_path: Path) -> None:
    """A closed loop, or a trace that says when; rates for them are refused."""
    closed = (*SMALL, "workload.max_concurrency=3")
    assert folders(*closed, schedulers=("orca",)) == ["orca/concurrency-3"]
    timed = tmp_path / "timed.csv"
    timed.write_text(LENGTHS.replace("num_p", "arrived_at,num_p").replace("\n", "\n1,"))
    timed.write_text(timed.read_text().removesuffix("1,"))
    trace = f"workload.path={timed}"
    assert folders(trace, schedulers=("orca",)) == ["orca/trace"]
    for overrides in (closed, (trace,)):
        with pytest.raises(ConfigError, match=r"^--rates: .*allowed: no --rates$"):
            plan_points(None, overrides, rates=(1.0,))
    untimed = tmp_path / "untimed.csv"
    untimed.write_text(LENGTHS)
    found = folders(f"workload.path={untimed}", schedulers=("orca",), rates=(1.0, 2.0))
    assert found == ["orca/rate-1.00", "orca/rate-2.00"]


@pytest.mark.parametrize(
    ("overrides", "options", "words"),
    [
        ((), {"rates": (1.0, -1.0)}, "workload.request_rate = -1.0"),
        ((), {"rates": (math.nan,)}, "workload.request_rate = nan"),
        ((), {"rates": (math.inf,)}, "needs workload.num_requests"),
        ((), {"rates": ()}, "at least one scheduler and one rate"),
        ((), {"schedulers": ("layered",)}, 'engine.scheduler = "layered"'),
        ((), {"profile": "vllm-9"}, 'calibration.profile = "vllm-9"'),
        (("engine.max_num_batched_tokens=200",), {}, "with chunked-prefill"),
        (("workload.duration_s=1e-9",), {}, "ends before the first arrival"),
        (("model.name=Qwen/Qwen3-235B-A22B",), {}, "does not fit in memory"),
    ],
)
def test_a_bad_point_is_refused_before_any_runs(
    overrides: tuple[str, ...], options: dict[str, object], words: str
) -> None:
    """Wherever in the list it is."""
    with pytest.raises(ConfigError, match=words):
        plan_points(None, overrides, **options)  # type: ignore[arg-type]


def test_policies_serve_the_same_requests(tmp_path: Path) -> None:
    """Each point's files, one table, and differences that match the files."""
    plan = plan_points(
        None, SMALL, schedulers=("layered-prefill", "chunked-prefill"), rates=(2.0,)
    )
    done: list[None] = []
    result = compare(plan, tmp_path, jobs=1, on_done=lambda: done.append(None))
    assert len(done) == len(plan.runs) == 2 + 8
    assert len(result.points) == 2
    hashes = {summary["workload_sha256"] for summary in result.points}
    assert len(hashes) == 1
    frame = read_compare(tmp_path / "compare.csv")
    assert frame["scheduler"].tolist() == ["layered-prefill", "chunked-prefill"]
    for point, row in zip(plan.points, frame.itertuples(), strict=True):
        on_disk = json.loads((tmp_path / point.folder / "result.json").read_text())
        assert row.mean_ttft_ms == on_disk["mean_ttft_ms"]
        assert row.energy_j == on_disk["energy_j"]
        assert row.model == on_disk["model_id"]
    paired = pd.read_csv(tmp_path / "paired.csv").set_index("metric")
    assert set(paired["scheduler"]) == {"layered-prefill"}
    assert set(paired["baseline"]) == {"chunked-prefill"}
    means = frame.set_index("scheduler")
    for metric, column in (("ttft_ms", "mean_ttft_ms"), ("e2el_ms", "mean_e2el_ms")):
        layered, chunked = means[column][["layered-prefill", "chunked-prefill"]]
        row = paired.loc[metric]
        assert row["mean_difference_ms"] == pytest.approx(layered - chunked)
        assert row["ci_low_ms"] < row["mean_difference_ms"] < row["ci_high_ms"]
        assert row["requests"] == 24
    assert [path.name for path in result.figures if path.suffix == ".png"] == [
        "pareto.png",
        "latency.png",
        "energy.png",
        "experts.png",
    ]


@pytest.mark.long
def test_one_policy_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    """The files are there all the same."""
    overrides = ("workload.num_requests=3",)
    plan = plan_points(None, overrides, schedulers=("orca",), rates=(2.0,))
    assert compare(plan, tmp_path, jobs=1).paired == []
    assert pd.read_csv(tmp_path / "paired.csv").empty
    assert len(read_compare(tmp_path / "compare.csv")) == 1


def requests(**columns: list[float]) -> pd.DataFrame:
    size = len(columns["ttft_ms"])
    return pd.DataFrame(
        {"id": range(size), "e2el_ms": [1.0] * size, "max_itl_ms": [1.0] * size}
        | columns
    )


def test_differences_are_of_the_same_request() -> None:
    """Whatever the order of rows; a request that one policy lost does not count."""
    policy = requests(ttft_ms=[10.0, 30.0, 20.0, 7.0])
    baseline = requests(ttft_ms=[12.0, 31.0, math.nan, 7.0]).iloc[::-1]
    row = paired_differences(policy, baseline)[0]
    assert row["metric"] == "ttft_ms"
    assert row["requests"] == 3
    assert row["mean_difference_ms"] == pytest.approx((-2 - 1 + 0) / 3)
    assert (row["ci_low_ms"], row["ci_high_ms"]) == (None, None)


def test_interval_by_hand() -> None:
    """Batch means 1 and 3 in turn: deviation 1 each, t = 2.093024 at 19 degrees."""
    values = np.repeat([1.0, 3.0] * (BATCHES // 2), 2)
    assert half_width(values) == pytest.approx(2.0930240544 * math.sqrt(20 / 19 / 20))
    assert math.isnan(half_width(values[: BATCHES - 1]))
    assert half_width(np.full(25, 4.0)) == 0


def test_interval_covers_the_mean_of_a_correlated_series() -> None:
    """AR(1) with correlation 0.8, where the plain standard error covers about half."""
    draws = stream(1, "coverage").standard_normal((400, 800))
    series = np.empty_like(draws)
    series[:, 0] = draws[:, 0] / math.sqrt(1 - 0.8**2)
    for k in range(1, draws.shape[1]):
        series[:, k] = 0.8 * series[:, k - 1] + draws[:, k]
    covered = [abs(row.mean()) <= half_width(row) for row in series]
    plain = 1.96 * series.std(axis=1) / math.sqrt(series.shape[1])
    assert np.mean(np.abs(series.mean(axis=1)) <= plain) < 0.6
    assert 0.90 <= np.mean(covered) <= 0.98
