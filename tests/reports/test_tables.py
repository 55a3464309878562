"""Tables: their width, their numbers, and Markdown that renders."""

from __future__ import annotations

import math
from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from reports.tables import comparison_table, markdown_table, summary_table
from sim.errors import ConfigError
from tests.reports.sample import compare_frame


def _lines(table: Table, width: int = 80) -> list[str]:
    """What a terminal, or a pipe, of this width would show."""
    out = StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue().splitlines()


def test_tables_fit_eighty_columns() -> None:
    """Nothing is cut, also for an overloaded server, of four policies."""
    frame = compare_frame(("chunked-prefill", "layered-prefill", "orca", "static"))
    frame["p99_ttft_ms"] *= 20
    frame["expert_weight_bytes"] *= 20
    for table in (comparison_table(frame), summary_table(frame)):
        lines = _lines(table)
        assert max(len(line) for line in lines) <= 80
        wide = [line.split() for line in _lines(table, 200)]
        assert [line.split() for line in lines] == wide


def test_piped_tables_have_no_colour() -> None:
    """A file is no terminal: no escape sequences."""
    assert "\x1b" not in "".join(_lines(comparison_table(compare_frame())))


def test_comparison_shows_the_numbers_of_a_row() -> None:
    """One row by hand, in the reading order of the heading."""
    frame = compare_frame(("layered-prefill",), (1.3,)).assign(
        mean_ttft_ms=1240.0,
        p99_ttft_ms=4100.0,
        p99_itl_ms=35.5,
        mean_e2el_ms=5500.0,
        request_goodput=1.25,
        slo_attainment=1.0,
        energy_per_token_j=0.0442,
        completed=100,
        expert_weight_bytes=58e12,
    )
    row = _lines(comparison_table(frame))[-1].split()
    assert " ".join(row) == "1.30 layered 1.24 4.10 35.5 5.50 1.25 100.0 44.2 580.0"


def test_summary_shows_changes_with_their_sign() -> None:
    """TTFT 2.80 to 1.24 s is -55.7 %; attainment changes in points; unknown is -."""
    frame = compare_frame(rates=(1.3,)).assign(
        mean_ttft_ms=[2800.0, 1240.0],
        p99_ttft_ms=[1000.0, 2000.0],
        p99_itl_ms=math.nan,
        slo_attainment=[0.5, 0.75],
    )
    row = _lines(summary_table(frame))[-1].split()
    assert row[:4] == ["1.30", "-55.7", "+100.0", "-"]
    assert row[6] == "+25.0"


def test_markdown_by_hand() -> None:
    """A heading with units, an alignment row, then one line per row."""
    frame = compare_frame(rates=(1.3,)).assign(mean_ttft_ms=[2800.0, math.nan])
    assert markdown_table(frame, ["rate_req_s", "scheduler", "mean_ttft_s"]) == (
        "| Rate (req/s) | Policy | TTFT mean (s) |\n"
        "| ---: | :--- | ---: |\n"
        "| 1.30 | chunked-prefill | 2.80 |\n"
        "| 1.30 | layered-prefill | - |\n"
    )


def test_markdown_refuses_an_unknown_column() -> None:
    """The error lists what there is."""
    with pytest.raises(ConfigError, match=r"table column = ttft; .*mean_ttft_s"):
        markdown_table(compare_frame(), ["ttft"])
