"""The plot of a terminal, by hand and by its edges."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from reports.pareto import pareto_front
from reports.text_plot import WIDTH, Mark, scatter_text
from reports.tradeoff import tradeoff_text
from tests.reports.sample import tradeoff_frame
from tests.sim.pricing import QUICK


def test_corners_and_the_middle_of_a_decade() -> None:
    """1, 10 and 100 on logarithmic axes: both ends and the middle."""
    marks = [Mark(1, 1, "a"), Mark(10, 10, "b", front=True), Mark(100, 100, "c")]
    lines = scatter_text(marks, "x (s)", "y (ms)")
    assert lines[0] == "y (ms)"
    assert lines[1].split("|")[0].strip() == "100"
    assert lines[1].endswith("c")
    assert len(lines[1]) == WIDTH
    bottom = lines[14]
    assert bottom.split("|")[1] == "a"
    assert bottom.split("|")[0].strip() == "1"
    (middle,) = (line for line in lines if line.endswith("B"))
    assert abs(len(middle.split("|")[1]) - (WIDTH - 11) / 2) <= 1
    assert lines[-1].split() == ["1", "x", "(s)", "100"]


def test_too_few_marks_draw_nothing() -> None:
    assert scatter_text([Mark(1, 1, "a"), Mark(math.nan, 1, "b")], "x", "y") == []
    assert scatter_text([], "x", "y") == []


def test_the_frontier_shows_where_points_share_a_cell() -> None:
    marks = [Mark(1, 1, "a", front=True), Mark(1, 1, "b"), Mark(9, 9, "c")]
    text = "\n".join(scatter_text(marks, "", ""))
    assert "A" in text
    assert "b" not in text


@QUICK
@given(
    st.lists(
        st.tuples(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6)), min_size=2, max_size=30
    )
)
def test_lines_fit_and_marks_stay_inside(points: list[tuple[float, float]]) -> None:
    lines = scatter_text([Mark(x, y, "a") for x, y in points], "x" * 30, "y")
    assert max(map(len, lines)) <= WIDTH
    assert 1 <= sum(line.partition("|")[2].count("a") for line in lines) <= len(points)


def test_a_tradeoff_marks_what_nothing_beats() -> None:
    frame = tradeoff_frame()
    lines = tradeoff_text(frame)
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].startswith("TTFT against TBT at 1.3 req/s: c chunked-prefill")
    body = "\n".join(line.partition("|")[2] for line in lines)
    whole = frame[frame["completed"] == 780]
    points = whole[["mean_ttft_ms", "p99_itl_ms"]].to_numpy(dtype=float)
    front = pareto_front(points, (True, True))
    assert sum(body.count(letter) for letter in "CLO") == front.sum()
    assert "o" in body  # Orca refused requests: not on the frontier
