"""The trade-off: what is read, and the frontiers drawn from it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

from reports.figures import pareto_figure
from reports.tradeoff import check_tradeoff, read_tradeoff
from sim.errors import ConfigError
from tests.reports.sample import tradeoff_frame


def _labels(frame: pd.DataFrame) -> list[str]:
    return sorted(text.get_text() for text in pareto_figure(frame).axes[0].texts)


def _ringed(axes: Axes) -> list[list[float]]:
    ring = next(line for line in axes.lines if line.get_markerfacecolor() == "none")
    return np.column_stack(ring.get_data()).tolist()  # type: ignore[no-any-return]


def test_frontier_by_hand() -> None:
    """Every value is written; 512 and 1024 are beaten, Orca refused requests."""
    axes = pareto_figure(tradeoff_frame()).axes[0]
    assert sorted(text.get_text() for text in axes.texts) == [
        "1024",
        "16 groups",
        "2048",
        "512",
        "58 % served",  # Orca's 450 of 780
        "8 groups",
    ]
    assert _ringed(axes) == [[0.45, 86], [0.65, 52], [1.5, 37]]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")


def test_steps_bound_what_a_policy_dominates() -> None:
    """From the top edge through the chunks by TTFT to the right edge."""
    axes = pareto_figure(tradeoff_frame()).axes[0]
    right, top = axes.get_xlim()[1], axes.get_ylim()[1]
    steps = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    chunked = np.column_stack(steps[1].get_data())  # the joint frontier is first
    expected = [[0.45, top], [0.45, 86], [0.8, 63], [3.0, 50], [right, 50]]
    np.testing.assert_allclose(chunked, expected)


def test_figure_says_what_was_run_and_what_the_knobs_are() -> None:
    """Title with the rate, legend with the knobs, axes with units."""
    figure = pareto_figure(tradeoff_frame())
    assert figure.get_suptitle() == (
        "Qwen/Qwen3-30B-A3B, 2 x h100_sxm, arxiv, profile layered-prefill-v1, 1.3 req/s"
    )
    words = {text.get_text() for text in figure.findobj(Text)}
    assert {
        "chunked prefill, by chunk size in tokens",
        "layered prefill, by layer groups",
        "orca",
        "joint frontier",
    } <= words
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Mean TTFT (s)", "p99 TBT (ms)")


def test_settings_that_fall_together_share_a_label() -> None:
    """A cap on layer groups that no batch reaches changes nothing."""
    frame = tradeoff_frame().iloc[3:5].assign(mean_ttft_ms=1500.0, p99_itl_ms=37.0)
    assert _labels(frame) == ["8, 16 groups"]
    assert _labels(frame.head(1).assign(knob_value=1)) == ["1 group"]


@pytest.mark.parametrize(
    "frame",
    [
        tradeoff_frame().tail(1),
        tradeoff_frame().assign(mean_ttft_ms=math.nan, p99_itl_ms=math.nan),
        tradeoff_frame().assign(completed=0),
        tradeoff_frame().assign(p99_itl_ms=[0.0, 1.0, 30.0, 300.0, 2.0, 5.0]),
        tradeoff_frame().assign(knob="block_size"),
    ],
    ids=["no knob", "unknown values", "nothing served", "a zero", "another knob"],
)
def test_odd_frames_are_drawn_without_a_warning(frame: pd.DataFrame) -> None:
    """Warnings are errors in this suite."""
    check_tradeoff(frame, "frame")
    pareto_figure(frame).draw_without_rendering()


def test_a_written_frame_is_read_back(tmp_path: Path) -> None:
    """A policy without a knob keeps its empty fields."""
    frame = tradeoff_frame()
    frame.to_csv(tmp_path / "t.csv", index=False)
    read = read_tradeoff(tmp_path / "t.csv")
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (tradeoff_frame().drop(columns="knob_value"), "missing column(s) knob_value"),
        (tradeoff_frame().drop(columns="knob"), "missing column(s) knob"),
        (tradeoff_frame().assign(knob_value=-1.0), "knob_value = -1.0; expected"),
        (tradeoff_frame().assign(knob_value=2), "chunked-prefill, knob_value = 2"),
        (
            tradeoff_frame().assign(request_rate=[1.0, 2.0, 1.0, 1.0, 1.0, 1.0]),
            "request_rate = 1, 2; expected one finite rate",
        ),
        (tradeoff_frame().assign(request_rate=math.inf), "request_rate = inf"),
        (tradeoff_frame().assign(request_rate=math.nan), "request_rate = nan"),
    ],
)
def test_a_bad_frame_is_refused(frame: pd.DataFrame, words: str) -> None:
    """In one line that names the file."""
    with pytest.raises(ConfigError, match=f"^t.csv: .*{re.escape(words)}"):
        check_tradeoff(frame, "t.csv")
