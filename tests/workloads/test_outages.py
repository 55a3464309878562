"""Outages from files and from a law: bad files, the long-run share of time up."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sim.errors import ConfigError
from sim.outages import Outage, Outages
from workloads.outages import DRAWN, draw_outages, read_outages

HEADER = "replica,kind,start_s,end_s\n"


def read(tmp_path: Path, text: str, replicas: int = 2) -> Outages:
    path = tmp_path / "outages.csv"
    path.write_text(text)
    return read_outages(str(path), replicas)


def test_rows_in_any_order_with_further_columns(tmp_path: Path) -> None:
    text = "why,end_s,start_s,kind,replica\npatch,9.5,7,drain,1\n,2e-9,1e-9,failure,1\n"
    of = read(tmp_path, text).of
    assert of == (
        (),
        (Outage(1, 1, 2, True), Outage(1, 7 * 10**9, 9_500_000_000, False)),
    )


def test_a_file_of_no_outages_changes_nothing(tmp_path: Path) -> None:
    assert not read(tmp_path, HEADER)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("2,failure,0,1", r":2: replica: '2'; allowed: an integer in 0\.\.1"),
        ("-1,failure,0,1", "replica: '-1'"),
        ("0,fire,0,1", "kind: 'fire'; allowed: failure or drain"),
        ("0,failure,nan,1", "start_s: 'nan'; allowed: seconds in 0"),
        ("0,failure,0,inf", "end_s: 'inf'"),
        ("0,failure,-1,2", "start_s: '-1'"),
        ("0,failure,0,1e99", "end_s: '1e99'"),
        ("0,failure,5,4", r"end_s: '4'; allowed: later than start_s \(5\)"),
        ("0,failure,5,5.0000000001", "end_s"),
        ("0,drain,3,9\n0,failure,2,4", r":2: start_s: '3.0'; allowed: later than 4.0"),
        ("0,drain,1,2\n0,failure,2,4", ":3: start_s: '2.0'"),
        ("0,drain,1", ":2: fields: 3; allowed: 4"),
    ],
)
def test_bad_rows_are_one_clear_line(tmp_path: Path, rows: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read(tmp_path, f"{HEADER}{rows}\n")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", ["replica,kind,start_s", "kind," + HEADER, ""])
def test_bad_headers_are_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(ConfigError, match="a header replica,kind,start_s,end_s"):
        read(tmp_path, header)


def test_replicas_are_up_for_mtbf_over_mtbf_plus_repair() -> None:
    """Alternating renewal process: 100 s up and 25 s down on average, 0.8 of the time.

    The ratio of two means of n exponentials has a relative standard error of about
    sqrt(2 / n); of the share up that is 0.2 of it. n = 16,000: 0.8 +- 0.0018.
    """
    drawn = draw_outages(3, 8, 100.0, 25.0)
    assert drawn.endless
    ends = [own[-1].end_ns for own in drawn.of]
    down = sum(o.end_ns - o.start_ns for own in drawn.of for o in own)
    error = 0.8 * 0.2 * np.sqrt(2 / (8 * DRAWN))
    assert abs(1 - down / sum(ends) - 0.8) < 4 * error
    for own in drawn.of:
        assert all(a.end_ns < b.start_ns for a, b in pairwise(own))


def test_failures_of_a_replica_hang_on_the_seed_alone() -> None:
    assert draw_outages(3, 2, 100.0, 25.0).of == draw_outages(3, 5, 100.0, 25.0).of[:2]
    assert draw_outages(4, 1, 100.0, 25.0).of != draw_outages(3, 1, 100.0, 25.0).of


def test_so_many_replicas_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"cluster.mtbf_s: .* at most 500"):
        draw_outages(0, 501, 1.0, 1.0)
