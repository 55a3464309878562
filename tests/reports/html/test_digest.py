"""Verdicts, intervals and measured errors, against sums done another way."""

from __future__ import annotations

import math
from dataclasses import replace
from html import escape
from pathlib import Path

import pandas as pd
import pytest

from reports.html.accuracy import accuracy_of, measured_gains
from reports.html.chances import own_interval, paired_interval
from reports.html.digest import cards_of, digest_of, how_sure, what_if_lines
from reports.html.page import render_page
from reports.html.study import Run, read_study


@pytest.fixture(scope="module")
def pair(compared: Path) -> tuple[Run, Run]:
    study = read_study([compared])
    runs = [study.run(name, "1.3 req/s") for name in study.policies]
    chunked, layered = runs
    assert chunked is not None
    assert layered is not None
    return chunked, layered


def test_the_paired_interval_is_that_of_paired_csv(
    compared: Path, pair: tuple[Run, Run]
) -> None:
    chunked, layered = pair
    table = pd.read_csv(compared / "paired.csv").set_index(["load", "metric"])
    for key, metric in (("mean_ttft_ms", "ttft_ms"), ("mean_e2el_ms", "e2el_ms")):
        row = table.loc[("rate-1.30", metric)]
        interval = paired_interval(layered, chunked, key)
        assert interval is not None
        assert interval.mean == pytest.approx(row["mean_difference_ms"])
        assert interval.mean - interval.half == pytest.approx(row["ci_low_ms"])


def test_the_own_interval_surrounds_the_mean_of_the_result(
    pair: tuple[Run, Run],
) -> None:
    interval = own_interval(pair[1], "mean_ttft_ms")
    assert interval is not None
    assert interval.mean == pytest.approx(pair[1].summary["mean_ttft_ms"])
    assert own_interval(pair[1], "energy_per_token_j") is None


def test_other_requests_are_not_paired(pair: tuple[Run, Run]) -> None:
    other = replace(pair[0], summary={**pair[0].summary, "workload_sha256": "other"})
    assert paired_interval(pair[1], other, "mean_ttft_ms") is None


def _changed(run: Run, **values: float) -> Run:
    """Another run of other requests, with these values."""
    return replace(
        run, summary={**run.summary, **values, "workload_sha256": str(values)}
    )


@pytest.mark.parametrize(
    ("key", "old", "new", "verdict", "change"),
    [
        ("energy_per_token_j", 0.10, 0.08, "better", "\N{MINUS SIGN}20.0 %"),
        ("energy_per_token_j", 0.10, 0.125, "worse", "+25.0 %"),
        ("energy_per_token_j", 0.10, 0.101, "equal", "+1.0 %"),
        ("slo_attainment", 0.8, 0.9, "better", "+10.0 points"),
        ("slo_attainment", 0.9, 0.8, "worse", "\N{MINUS SIGN}10.0 points"),
    ],
)
def test_verdicts(
    pair: tuple[Run, Run], key: str, old: float, new: float, verdict: str, change: str
) -> None:
    cards = cards_of(_changed(pair[1], **{key: new}), _changed(pair[0], **{key: old}))
    (card,) = (card for card in cards if card.quantity.key == key)
    assert (card.verdict, card.change) == (verdict, change)


def test_a_difference_within_its_interval_is_unclear(
    pair: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    from reports.html.chances import Interval  # noqa: PLC0415

    monkeypatch.setattr(
        "reports.html.digest.paired_interval", lambda *_: Interval(-5.0, 6.0)
    )
    card = cards_of(pair[1], pair[0])[0]
    assert card.verdict == "unclear"


def test_worse_at_another_load_is_a_cost(compared: Path) -> None:
    study = read_study([compared])
    runs = [
        _changed(run, energy_per_token_j=9.0)
        if (run.name, run.load) == ("layered-prefill", "1 req/s")
        else run
        for run in study.compared
    ]
    worse = replace(study, compared=tuple(runs))
    summary = study.compared[0].summary
    digest = digest_of(worse, "1.3 req/s", accuracy_of(summary))
    assert digest is not None
    assert any(line.startswith("at 1 req/s: energy per token") for line in digest.cost)


def test_a_what_if_is_said_at_the_top_and_at_its_numbers(compared: Path) -> None:
    """Escaped, as all that comes from files."""
    study = read_study([compared])
    knobs = "cluster.hbm_bandwidth_scale = 2 <b>"
    runs = [
        _changed(run, what_if=knobs) if run.name == "layered-prefill" else run
        for run in study.compared
    ]
    page = render_page(replace(study, compared=tuple(runs)))
    line = (
        f"What-if, not a machine that was profiled: layered-prefill, {escape(knobs)}."
    )
    assert page.count(line) == 1
    assert "layered-prefill against chunked-prefill at 1.3 req/s (what-if)" in page
    assert "what-if" not in render_page(study).lower()


def test_what_ifs_are_listed_once_and_not_without_end() -> None:
    knobs = [("a", f"scale = {k % 9}") for k in range(90)] + [("b", math.nan)]
    lines = what_if_lines([*knobs, ("c", None)])
    assert len(lines) == 7
    assert lines[-1] == "What-if: 3 more."


def test_measured_errors_are_of_the_same_regime(pair: tuple[Run, Run]) -> None:
    summary = pair[0].summary
    accuracy = accuracy_of(summary)
    assert accuracy.likeness == "this engine, model and GPU"
    assert set(accuracy.cases["profile"]) == {"layered-prefill-v1"}
    held_out = accuracy.errors_of("TTFT")
    assert len(held_out) == 4
    errors = accuracy.cases["predicted"] / accuracy.cases["measured"] - 1
    assert errors.to_numpy() == pytest.approx(accuracy.cases["error"].to_numpy())


def test_an_unmeasured_regime_says_so(pair: tuple[Run, Run]) -> None:
    summary = {**pair[0].summary, "profile": "x", "gpu": "y", "model_id": "z"}
    accuracy = accuracy_of(summary)
    assert accuracy.likeness == ""
    lines = how_sure([replace(pair[0], summary=summary)], accuracy)
    assert any("is not known" in line for line in lines)
    assert measured_gains(summary).empty


def test_measured_gains_are_ratios_of_the_same_protocol(pair: tuple[Run, Run]) -> None:
    """The table of arXiv 2510.08055: mean TTFT of 2800 and 1240 ms at 1.3 req/s."""
    gains = measured_gains(pair[0].summary).set_index("metric")
    assert gains.loc["mean_ttft_ms", "measured"] == pytest.approx(1240 / 2800 - 1)
    assert "energy_per_token_j" not in gains.index  # at different rates
