"""What commands say of their results: figures, intervals, what is left out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.cli_capacity import _answer, _interval, _replicas_answer
from sim.cli_output import warn_what_if
from sim.cli_run import _warn_of_cut, p99_note
from sim.cli_sweep import _duration, _print_plan
from sim.statistics import Interval, mean_interval
from sim.studies.capacity import Capacity, Evaluation, SeedCapacity
from sim.studies.min_replicas import MinReplicas, Size
from sim.studies.store import Record
from sim.studies.study import make_study
from sim.studies.sweep import plan_sweep
from sim.worked_studies import options

NONE = math.nan


def test_p99_comes_with_the_ranks_around_it() -> None:
    """Of 1..1000 s: quantiles 2.5 and 97.5 % of the binomial (1000, 0.99) are 983, 996.

    The upper end is the next value; it exists from 0.99^n <= 0.025 on, n = 368.
    """
    ranks = 1e3 * np.arange(1, 1001)
    words = p99_note(ranks)
    low, high = (float(words.split()[k]) for k in (2, 4))
    assert (low, high) == (983.0, 997.0)
    few = p99_note(ranks[:100])
    assert few == "p99: too few requests for an interval, 100 of 368"


def test_a_cut_trace_says_what_it_lacks(capfd: pytest.CaptureFixture[str]) -> None:
    _warn_of_cut({"iterations_left_out": 0, "requests_left_out": 0})
    assert capfd.readouterr().err == ""
    _warn_of_cut({"iterations_left_out": 7, "requests_left_out": 2})
    said = capfd.readouterr().err
    assert "leaves out the last 7 iterations and the last 2 requests" in said


def test_machines_that_were_not_profiled_are_named_once_and_counted(
    capfd: pytest.CaptureFixture[str],
) -> None:
    warn_what_if([None, "HBM x 1.5", None, "HBM x 1.5", ""])
    said = capfd.readouterr().err
    assert said == "warning: what-if, not a machine that was profiled: HBM x 1.5\n"
    warn_what_if(f"HBM x {k}" for k in range(2, 9))
    *named, rest = capfd.readouterr().err.splitlines()
    assert [line.rpartition(" ")[2] for line in named] == ["2", "3", "4"]
    assert rest == "warning: what-if: 4 more machines that were not profiled"


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(1.2345, 1.1345, 1.3345, 3), "1.23 ± 0.10"),
        (Interval(123.4, 121.4, 125.4, 3), "123 ± 2"),
        (Interval(0.01234, NONE, NONE, 1), "0.0123"),
        (Interval(0.0, 0.0, 0.0, 3), "0.00 ± 0.00"),
        (Interval(NONE, NONE, NONE, 0), "-"),
    ],
)
def test_means_have_three_figures_and_their_half_width(
    interval: Interval, text: str
) -> None:
    assert _interval(interval) == text


def seeds(*rates: float) -> tuple[SeedCapacity, ...]:
    record = Record("key", {}, {}, None)
    return tuple(
        SeedCapacity(seed, rate, (Evaluation(seed, 3.5, 0.1, record),))
        for seed, rate in enumerate(rates)
    )


def test_a_capacity_that_is_none_or_past_the_last_rate() -> None:
    """Neither is a number of requests per second."""
    none = Capacity(mean_interval([0.0, 0.0]), seeds(0.0, 0.0), 0)
    assert _answer(none).startswith("capacity: none; the target is missed")
    end = Interval(math.inf, math.inf, math.inf, 2)
    beyond = Capacity(end, seeds(math.inf, math.inf), 0)
    assert _answer(beyond).startswith("capacity: above 3.5 req/s, the highest rate")


def size(replicas: int, slack: Interval) -> Size:
    return Size(replicas, slack, ())


def test_fewest_replicas_say_how_sure_they_are() -> None:
    sure, unsure = Interval(0.2, 0.1, 0.3, 3), Interval(0.02, -0.1, 0.14, 3)
    missed = Interval(-0.2, -0.3, -0.1, 3)
    found = size(3, sure)
    assert _replicas_answer(MinReplicas(found, (found,)), 2) == (
        "fewest replicas: 3, 6 GPUs"
    )
    found = size(3, unsure)
    assert "one more to be safe" in _replicas_answer(MinReplicas(found, (found,)), 2)
    tried = (size(1, missed), size(1024, missed))
    assert "up to 1024 meets" in _replicas_answer(MinReplicas(None, tried), 2)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.4, "4 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (7325, "2 h 2 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


def test_a_dry_run_as_json_and_without_an_estimate(
    capfd: pytest.CaptureFixture[str],
) -> None:
    plan = plan_sweep(make_study({"seed": [1, 2]}))
    _print_plan(plan, 1, None, as_json=True)
    assert json.loads(capfd.readouterr().out) == {
        "points": 2,
        "pending": 1,
        "estimated_s": None,
        "settings": [{"seed": 1}, {"seed": 2}],
    }
    _print_plan(plan, 1, None, as_json=False)
    assert "2 points, 1 to run, about unknown" in capfd.readouterr().out


def test_a_worked_study_reads_its_folder_and_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words: list[Any] = ["study", "--duration-s", "60", "--replications", "5"]
    monkeypatch.setattr("sys.argv", [*words, "--jobs", "2"])
    out, given = options.parse("about", "gpu-choice")
    assert out == Path("servescope-gpu-choice")
    assert (given.duration_s, given.replications, given.options.jobs) == (60.0, 5, 2)
    monkeypatch.setattr("sys.argv", ["study", "--out", "o"])
    assert options.parse("about", "x") == (Path("o"), options.Size())
