"""Trade-offs: which settings of which knob, at which rate, and what is written."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from reports.tradeoff import read_tradeoff
from sim.compare import Plan, compare, plan_points
from sim.config_file import load_config

SMALL = ("workload.num_requests=12",)
ALL = ("static", "orca", "chunked-prefill", "layered-prefill")


def settings(plan: Plan, scheduler: str) -> dict[int | None, str]:
    """Folder by value of the knob."""
    return {
        setting.value: setting.point.folder
        for setting in plan.tradeoff
        if setting.point.scheduler == scheduler
    }


def test_main_job_by_hand() -> None:
    """At its own 1.3 requests per second: 2 of 10 settings are already points."""
    plan = plan_points(None)
    chunked = "chunked-prefill/tradeoff/max_num_batched_tokens-"
    assert settings(plan, "chunked-prefill") == {
        512: "chunked-prefill/rate-1.30",
        1024: f"{chunked}1024",
        2048: f"{chunked}2048",
        4096: f"{chunked}4096",
        8192: f"{chunked}8192",
    }
    layered = "layered-prefill/tradeoff/num_layer_groups-"
    assert settings(plan, "layered-prefill") == {
        2: f"{layered}2",
        4: f"{layered}4",
        8: f"{layered}8",
        16: "layered-prefill/rate-1.30",
        24: f"{layered}24",
    }
    assert len(plan.points) == 18
    assert len(plan.runs) == 18 + 8


def test_only_the_knob_differs() -> None:
    """Every setting is the policy's point at that rate with one key changed."""
    plan = plan_points(None)
    own = {p.scheduler: p for p in plan.points if p.load == "rate-1.30"}
    for setting in plan.tradeoff:
        assert setting.knob is not None
        base = own[setting.point.scheduler].config.resolved().model_dump()
        base["engine"][setting.knob] = setting.value
        assert setting.point.config.resolved().model_dump() == base


@pytest.mark.parametrize(
    ("overrides", "rates", "load"),
    [
        ((), (1.0, 1.3, 1.4), "rate-1.30"),
        (("workload.request_rate=1.4",), (1.0, 1.3, 1.4), "rate-1.40"),
        (("workload.request_rate=2.5",), None, "rate-2.50"),
        ((), (4.0, 3.0, 2.0), "rate-3.00"),
        ((), (5.0, 2.0, 4.0, 3.0), "rate-3.00"),
        ((), (math.inf, 2.0, 3.0), "rate-2.00"),
        (("workload.request_rate=inf",), (2.0,), "rate-2.00"),
    ],
)
def test_the_rate_is_the_configured_or_the_median(
    overrides: tuple[str, ...], rates: tuple[float, ...] | None, load: str
) -> None:
    """The lower of two middle ones, of finite ones only."""
    plan = plan_points(None, (*SMALL, *overrides), rates=rates)
    assert {setting.point.load for setting in plan.tradeoff} == {load}


def test_values_are_those_the_engine_allows() -> None:
    """A chunk holds every running request; a model of 36 layers has 36 groups."""
    own = ("engine.max_num_batched_tokens=2048", "engine.num_layer_groups=60")
    plan = plan_points(
        None,
        (*SMALL, *own, "engine.max_num_seqs=1024", "model.name=Qwen/Qwen3-8B"),
    )
    assert list(settings(plan, "chunked-prefill")) == [1024, 2048, 4096, 8192]
    assert list(settings(plan, "layered-prefill")) == [2, 4, 8, 16, 24, 36]


def test_a_configured_value_is_among_the_settings() -> None:
    """Under the name of the compared point, in its place."""
    own = ("engine.max_num_batched_tokens=700", "engine.num_layer_groups=60")
    plan = plan_points(None, (*SMALL, *own))
    chunked, layered = (settings(plan, name) for name in ALL[2:])
    assert list(chunked) == [512, 700, 1024, 2048, 4096, 8192]
    assert chunked[700] == "chunked-prefill/rate-1.30"
    assert list(layered) == [2, 4, 8, 16, 24, 48]
    assert layered[48] == "layered-prefill/rate-1.30"


def test_a_policy_without_a_knob_is_one_point() -> None:
    """Alone it is no trade-off."""
    plan = plan_points(None, SMALL, schedulers=ALL)
    for name in ALL[:2]:
        assert settings(plan, name) == {None: f"{name}/rate-1.30"}
    assert plan_points(None, SMALL, schedulers=ALL[:2]).tradeoff == []


@pytest.mark.long
def test_no_rate_no_tradeoff(tmp_path: Path) -> None:
    """A closed loop, all at once, or a trace that says when; nothing is drawn."""
    timed = tmp_path / "timed.csv"
    timed.write_text(
        "arrived_at,num_prefill_tokens,num_decode_tokens\n" + 12 * "1,100,2\n"
    )
    for override in (
        "workload.max_concurrency=2",
        "workload.request_rate=inf",
        f"workload.path={timed}",
    ):
        plan = plan_points(None, (*SMALL, override))
        assert plan.tradeoff == []
        assert plan.runs == plan.points
        out = tmp_path / "out"
        result = compare(plan, out, jobs=1)
        assert result.figures == []
        assert result.further == []
        assert {path.name for path in out.iterdir()} == {
            *ALL[2:],
            "compare.csv",
            "paired.csv",
        }


def test_table_and_files_agree(tmp_path: Path) -> None:
    """Columns of compare.csv and the knob; each setting ran once, in its folder."""
    plan = plan_points(None, SMALL, schedulers=ALL[1:3], rates=(1.0, 1.3))
    done: list[None] = []
    result = compare(plan, tmp_path, jobs=1, on_done=lambda: done.append(None))
    assert len(done) == len(plan.runs) == 4 + 4
    assert len(result.further) == 4
    frame = read_tradeoff(tmp_path / "tradeoff.csv")
    compared = pd.read_csv(tmp_path / "compare.csv")
    assert list(frame) == [*compared, "knob", "knob_value"]
    assert frame["scheduler"].tolist() == ["orca", *["chunked-prefill"] * 5]
    assert frame["knob"].isna().tolist() == [True, *[False] * 5]
    assert frame["knob_value"].tolist()[1:] == [512, 1024, 2048, 4096, 8192]
    text = (tmp_path / "tradeoff.csv").read_text().splitlines()
    assert text[2].endswith(",max_num_batched_tokens,512")
    assert frame["workload_sha256"].nunique() == 1
    for setting, row in zip(plan.tradeoff, frame.itertuples(), strict=True):
        folder = tmp_path / setting.point.folder
        on_disk = json.loads((folder / "result.json").read_text())
        assert row.mean_ttft_ms == on_disk["mean_ttft_ms"]
        config = tomllib.loads((folder / "config.toml").read_text())
        if setting.knob is not None:
            assert config["engine"][setting.knob] == setting.value
        assert load_config(folder / "config.toml") == setting.point.config.resolved()
    assert {
        path.name for path in (tmp_path / "chunked-prefill/tradeoff").iterdir()
    } == {f"max_num_batched_tokens-{value}" for value in (1024, 2048, 4096, 8192)}
    assert [path.name for path in result.figures][:2] == ["pareto.png", "pareto.svg"]


@pytest.mark.long
def test_smaller_chunks_wait_longer_and_stall_less(tmp_path: Path) -> None:
    """The trade-off there is (arXiv 2403.02310, section 4.3), under a moderate load."""
    overrides = ("workload.num_requests=60", "workload.request_rate=1")
    plan = plan_points(None, overrides, schedulers=("chunked-prefill",))
    compare(plan, tmp_path, jobs=1)
    frame = read_tradeoff(tmp_path / "tradeoff.csv")
    assert frame["mean_ttft_ms"].is_monotonic_decreasing
    assert frame["p99_itl_ms"].is_monotonic_increasing
