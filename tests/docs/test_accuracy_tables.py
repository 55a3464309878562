"""Errors shown in the documentation are those of the shipped table of predictions."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd
import pytest

from reports.validation import plain_percent, signed_percent
from sim.error_summary import error_summary
from tests.docs.running import ROOT

_ORDER = ("validation", "calibration")
_KEYS = {
    "rate at 90 % SLO, req/s": "rate_at_90_slo",
    "mean TTFT, ms": "mean_ttft_ms",
    "p99 TTFT, ms": "p99_ttft_ms",
    "mean E2E, ms": "mean_e2el_ms",
    "p99 TBT, ms": "p99_itl_ms",
    "mean ITL, ms": "mean_itl_ms",
    "energy, J/token": "energy_per_token_j",
}


@pytest.fixture(scope="module")
def cases() -> pd.DataFrame:
    with files("reports").joinpath("data", "accuracy.csv").open() as file:
        return pd.read_csv(file)


def _rows(page: str, head: str) -> list[list[str]]:
    """Cells of the table whose heading line begins so."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(head))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_error_table_of_the_readme(cases: pd.DataFrame) -> None:
    """Mean error, bias, rank correlation and worst case of every kind and metric."""
    summary = error_summary(cases).query("by == 'metric'")
    expected = [
        [
            row["kind"],
            row["group"],
            str(row["n"]),
            plain_percent(row["mape"]),
            signed_percent(row["bias"]),
            "-" if pd.isna(row["spearman"]) else f"{row['spearman']:.2f}",
            f"{row['worst_case']} {row['worst_metric']}"
            f" {100 * row['worst_error']:+.0f} %",
        ]
        for row in summary.to_dict("records")
    ]
    shown = _rows("README.md", "| kind | metrics | n |")
    assert shown == sorted(expected, key=lambda row: _ORDER.index(row[0]))


def test_layered_prefill_runs(cases: pd.DataFrame) -> None:
    """Every number shown run by run, to the digits shown."""
    table = cases.set_index(["case", "metric"])
    shown = _rows("calibration/README.md", "| measured run | metric |")
    assert len(shown) == 21
    for case, metric, measured, predicted, spread, error in shown:
        row = table.loc[case, _KEYS[metric.removesuffix(" (calibration)")]]
        assert ("(calibration)" in metric) == (row["kind"] == "calibration")
        low, high = spread.split("-")
        for text, value in (
            (measured, row["measured"]),
            (predicted, row["predicted"]),
            (low, row["lowest"]),
            (high, row["highest"]),
        ):
            digits = len(text.partition(".")[2])
            assert float(text) == pytest.approx(value, abs=0.51 * 10**-digits), case
        assert error == signed_percent(row["error"])
