"""Capacity against closed forms and a fine grid."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from reports.pareto import rate_at_attainment
from sim.cli import app
from sim.config import Config
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.runner import run_config
from sim.studies.capacity import Search, find_capacity, search_seed
from sim.studies.min_replicas import find_min_replicas, sized
from sim.studies.target import Target, parse_target

QUICK = Search(jobs=1, max_seeds=2)
# One request at a time, all of one size: a queue M/D/1.
SINGLE_SERVER = [
    "engine.max_num_seqs=1",
    "engine.scheduler=orca",
    "workload.dataset=random",
    "workload.random_input_len=256",
    "workload.random_output_len=1",
    "workload.num_requests=2000",
    "slo.ttft_ms=none",
    "slo.itl_ms=none",
]


def service_s(config: Config) -> float:
    """Time of a request that is alone."""
    workload = config.workload.model_copy(update={"num_requests": 1})
    alone = run_config(config.model_copy(update={"workload": workload})).summary
    return float(alone["mean_e2el_ms"]) / 1e3


@pytest.mark.parametrize(
    ("requests", "seeds", "half_width"),
    [(400, 4, 0.16), (2000, 5, 0.08)],
)
@pytest.mark.parametrize("waiting", [0.5, 2.0])
@pytest.mark.long
def test_a_single_server_has_the_capacity_of_pollaczek_and_khinchine(
    tmp_path: Path, waiting: float, requests: int, seeds: int, half_width: float
) -> None:
    """Mean time in system at most D (1 + w): rate with rho / (2 (1 - rho)) = w.

    The closed form lies inside the stated interval, widened by the bisection's
    tolerance (the interval is of seeds alone).
    """
    config = load_config(None, [*SINGLE_SERVER, f"workload.num_requests={requests}"])
    duration = service_s(config)
    limit_ms = 1e3 * duration * (1 + waiting)
    closed_form = 2 * waiting / (1 + 2 * waiting) / duration
    start = config.workload.model_copy(update={"request_rate": closed_form / 3})
    config = config.model_copy(update={"workload": start})
    target = Target(None, (("mean_e2el_ms", limit_ms),))
    found = find_capacity(config, target, tmp_path, Search(jobs=1, max_seeds=seeds))
    tolerance = 0.02 * closed_form
    assert found.rate.low - tolerance < closed_form < found.rate.high + tolerance
    assert found.rate.half_width < half_width * closed_form
    assert found.unstable == 0


@pytest.mark.long
def test_it_reproduces_a_fine_grid_with_a_fifth_of_its_runs(tmp_path: Path) -> None:
    """One seed of a quarter of the main job, grid of 1 %, within 2 %."""
    config = load_config(
        None, ["workload.duration_s=150", "engine.scheduler=chunked-prefill"]
    )
    found = search_seed(config, 0, Target(), tmp_path, 1.0, 1.5, 0.02)
    rates = np.round(np.arange(found.rate * 0.8, found.rate * 1.2, 0.01), 4)
    shares = []
    for rate in rates:
        workload = config.workload.model_copy(update={"request_rate": float(rate)})
        at_rate = config.model_copy(update={"workload": workload})
        shares.append(run_config(at_rate).summary["slo_attainment"])
    by_grid = rate_at_attainment(rates, shares)
    assert found.rate == pytest.approx(by_grid, rel=0.02)
    assert 5 * len(found.evaluations) <= len(rates)


@pytest.mark.long
def test_a_search_that_died_goes_on(tmp_path: Path) -> None:
    """The same runs are taken from the folder; bytes are the same."""
    config = load_config(None, ["workload.num_requests=6", "slo.ttft_ms=1000.0"])
    first = find_capacity(config, Target(), tmp_path, QUICK)
    files = {p: p.read_bytes() for p in tmp_path.glob("*.csv")}
    for path in list(tmp_path.glob("points/*/point.json"))[::2]:
        path.unlink()
    assert find_capacity(config, Target(), tmp_path, QUICK) == first
    assert {p: p.read_bytes() for p in tmp_path.glob("*.csv")} == files
    two = find_capacity(config, Target(), tmp_path / "two", Search(jobs=2, max_seeds=2))
    assert two == first


def test_what_is_met_always_or_never_is_said(tmp_path: Path) -> None:
    """Zero and infinity, not a made-up rate."""
    config = load_config(None, ["workload.num_requests=3"])
    never = Target(None, (("mean_ttft_ms", 1e-3),))
    always = Target(None, (("mean_ttft_ms", 1e9),))
    assert find_capacity(config, never, tmp_path / "a", QUICK).rate.estimate == 0
    found = find_capacity(config, always, tmp_path / "b", QUICK)
    assert math.isinf(found.rate.estimate)


def test_overload_is_said_to_be_unstable(tmp_path: Path) -> None:
    """A loose limit that a finite run meets although its queue grows."""
    config = load_config(None, [*SINGLE_SERVER, "workload.num_requests=300"])
    duration = service_s(config)
    target = Target(None, (("mean_e2el_ms", 60e3 * duration),))
    start = config.workload.model_copy(update={"request_rate": 1 / duration})
    config = config.model_copy(update={"workload": start})
    found = find_capacity(config, target, tmp_path, QUICK)
    assert found.rate.estimate > 1.1 / duration
    assert found.unstable == 2


@pytest.mark.long
def test_fewest_replicas_split_the_load(tmp_path: Path) -> None:
    """Of servers that each carry a known rate; more replicas, more nodes."""
    config = load_config(None, [*SINGLE_SERVER, "workload.num_requests=600"])
    duration = service_s(config)
    # 3.5 servers' worth of work: 4 replicas at load 0.875 queue, 3 grow without end
    update = {"request_rate": 3.5 / duration}
    config = config.model_copy(
        update={"workload": config.workload.model_copy(update=update)}
    )
    target = Target(None, (("mean_e2el_ms", 6e3 * duration),))
    found = find_min_replicas(config, target, tmp_path, QUICK)
    assert found.best is not None
    assert found.best.replicas == 4
    assert {size.replicas: size.met for size in found.tried} == {
        1: False,
        2: False,
        3: False,
        4: True,
    }
    assert next(size for size in found.tried if size.replicas == 2).unstable
    assert sized(config, 5).cluster.nodes == 5


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (["p99_ttft_ms"], "METRIC=NUMBER"),
        (["p99_ttft_ms=-1"], "METRIC=NUMBER"),
        (["p99_ttft_ms=nan"], "METRIC=NUMBER"),
    ],
)
def test_bad_limits_are_refused(limits: list[str], words: str) -> None:
    """With what is allowed."""
    with pytest.raises(ConfigError, match=words):
        parse_target(None, limits)


def test_what_cannot_be_searched_is_refused(tmp_path: Path) -> None:
    """A closed loop, a metric that is none, no SLO at all, a bad model."""
    closed = ["workload.max_concurrency=2", "workload.num_requests=3"]
    for settings, target, words in (
        (closed, Target(), "leaves no rate to search"),
        ([], Target(None, (("p98_ttft_ms", 1.0),)), "no such metric"),
        (["slo.ttft_ms=none", "slo.itl_ms=none"], Target(), "no limit is set"),
        (["model.name=Qwen/Qwen3-235B-A22B"], Target(), "does not fit"),
    ):
        config = load_config(None, ["workload.num_requests=2", *settings])
        with pytest.raises(ConfigError, match=words):
            find_capacity(config, target, tmp_path, QUICK)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text and JSON; both searches."""
    monkeypatch.chdir(tmp_path)
    words = ["capacity", "--jobs", "1", "--max-seeds", "2", "--out", "o"]
    words += ["--set", "workload.num_requests=12", "--set", "slo.ttft_ms=1500.0"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0
    assert "target: SLO attainment >= 90 %" in shown.stdout
    assert "USD/million tokens" in shown.stdout
    document = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    capacity = document["capacity_req_s"]
    assert f"capacity: {capacity['mean']:.2f} ±" in shown.stdout
    assert capacity["ci_low"] < capacity["mean"] < capacity["ci_high"]
    sized = CliRunner().invoke(app, [*words, "--min-replicas"])
    assert sized.exit_code == 0
    assert "fewest replicas: 1, 2 GPUs" in sized.stdout
    assert max(map(len, sized.stdout.splitlines())) <= 80
