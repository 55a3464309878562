"""The report of a compare directory: files, bytes, labels and errors."""

from __future__ import annotations

import math
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from reports.compare import write_compare_report
from reports.figures import (
    energy_figure,
    expert_figure,
    latency_figure,
    save_figure,
)
from reports.style import new_figure, paper_style
from sim.errors import ConfigError
from tests.reports.sample import compare_frame, tradeoff_frame

_STEMS = ("latency", "energy", "experts")
_DRAW: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "latency": latency_figure,
    "energy": energy_figure,
    "experts": expert_figure,
}
_PANELS = {"latency": 4, "energy": 2, "experts": 2}


def _write(directory: Path, frame: pd.DataFrame) -> list[Path]:
    """Make a compare directory and report on it."""
    directory.mkdir(exist_ok=True)
    frame.to_csv(directory / "compare.csv", index=False)
    return write_compare_report(directory)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of a small report, written once for all tests that only look."""
    directory = tmp_path_factory.mktemp("report")
    tradeoff_frame().to_csv(directory / "tradeoff.csv", index=False)
    return _write(directory, compare_frame(rates=(1.3, 1.5)))


def test_report_writes_every_figure_twice_and_nothing_else(report: list[Path]) -> None:
    """PNG (7 in at 200 dpi) and SVG beside the result files; no temporary is left."""
    directory = report[0].parent
    assert [path.name for path in report] == [
        f"{stem}.{kind}" for stem in ("pareto", *_STEMS) for kind in ("png", "svg")
    ]
    tables = {directory / "compare.csv", directory / "tradeoff.csv"}
    assert set(directory.iterdir()) == tables.union(report)
    for path in report:
        if path.suffix == ".png":
            assert struct.unpack(">I", path.read_bytes()[16:20]) == (1400,)
        else:
            assert path.read_text(encoding="utf-8").rstrip().endswith("</svg>")


@pytest.mark.long
def test_same_input_gives_the_same_bytes(report: list[Path], tmp_path: Path) -> None:
    """In this process, and in another with other hash seeds and user settings."""
    again, other = tmp_path / "again", tmp_path / "other"
    for directory in (again, other):
        directory.mkdir()
        for name in ("compare.csv", "tradeoff.csv"):
            shutil.copy(report[0].parent / name, directory)
    write_compare_report(again)
    settings = tmp_path / "matplotlibrc"
    settings.write_text("font.size: 20\nsavefig.dpi: 50\nsavefig.bbox: tight\n")
    code = (
        "import sys, pathlib, reports.compare as c;"
        "c.write_compare_report(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(other)],
        env={**os.environ, "PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(settings)},
        check=True,
    )
    for path in report:
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_files_say_no_date_and_no_version(report: list[Path]) -> None:
    """Neither format carries when or with what it was drawn."""
    for path in report:
        content = path.read_bytes()
        for word in (b"dc:date", b"tEXt", b"Matplotlib v"):
            assert word not in content, path.name


@pytest.mark.parametrize("stem", _STEMS)
def test_axes_carry_units_and_figures_a_title_and_legend(stem: str) -> None:
    """Every axis label ends in a unit; model, GPUs, dataset and profile are named."""
    figure = _DRAW[stem](compare_frame())
    assert len(figure.axes) == _PANELS[stem]
    for axes in figure.axes:
        for label in (axes.get_xlabel(), axes.get_ylabel()):
            assert re.search(r"\((s|ms|mJ|%|req/s|TB|GB/request)\)$", label), label
    title = figure.get_suptitle()
    assert "Qwen3-30B-A3B, 2 x h100_sxm, arxiv, profile layered" in title
    words = {text.get_text() for text in figure.findobj(Text)}
    assert {"chunked prefill", "layered prefill"} <= words


def test_latency_scale_is_logarithmic_only_over_a_decade() -> None:
    """TTFT from 1 to 61 s is drawn in decades, TBT from 35 to 125 ms from zero."""
    ttft, tbt, _, slo = latency_figure(compare_frame()).axes
    assert (ttft.get_yscale(), tbt.get_yscale()) == ("log", "linear")
    assert tbt.get_ylim()[0] == 0
    assert tbt.get_ylim()[1] > 125
    limits = [
        np.asarray(line.get_ydata())[0]
        for axes in (ttft, tbt, slo)
        for line in axes.lines[2:3]
    ]
    assert limits == [10.0, 125.0, 90.0]


def test_latency_writes_the_rate_at_ninety_percent() -> None:
    """100 % at 1 and 80 % at 2 req/s cross 90 % at 1.5 req/s."""
    frame = compare_frame(("orca",), (1.0, 2.0)).assign(slo_attainment=[1.0, 0.8])
    slo = latency_figure(frame).axes[3]
    assert [text.get_text() for text in slo.texts] == ["1.50 req/s"]


def test_energy_bars_stack_to_the_total() -> None:
    """The top of every bar is the energy per token of its row."""
    frame = compare_frame(rates=(1.0, 1.5))
    tops: dict[float, float] = {}
    for bar in energy_figure(frame).axes[1].patches:
        assert isinstance(bar, Rectangle)
        centre = round(bar.get_x() + bar.get_width() / 2, 6)
        tops[centre] = max(tops.get(centre, 0.0), bar.get_y() + bar.get_height())
    expected = 1e3 * frame["energy_per_token_j"]
    np.testing.assert_allclose([tops[x] for x in sorted(tops)], expected)


def test_expert_figure_writes_the_reduction() -> None:
    """From 900 to 549 GB a request is the paper's -39 %."""
    frame = compare_frame(rates=(1.3,)).assign(
        completed=100, expert_weight_bytes=[900e11, 549e11]
    )
    texts = expert_figure(frame).axes[1].texts
    assert [text.get_text() for text in texts] == ["\N{MINUS SIGN}39"]


@pytest.mark.parametrize(
    "frame",
    [
        compare_frame(("layered-prefill",), (1.3,)),
        pytest.param(
            compare_frame(("layered-prefill", "static"), tuple(np.arange(1, 22) / 20)),
            marks=pytest.mark.long,
        ),
        compare_frame(rates=(1.0, 1.1)).assign(
            mean_ttft_ms=math.nan,
            p99_itl_ms=math.nan,
            slo_attainment=math.nan,
            slo_ttft_ms=math.nan,
            energy_per_token_j=math.nan,
            expert_weight_bytes=0.0,
        ),
        compare_frame(rates=(1.0, 1.1)).assign(p99_itl_ms=[0.0, 1.0, 30.0, 300.0]),
    ],
    ids=["one point", "many rates", "unknown values", "a zero on a log axis"],
)
def test_odd_frames_are_drawn_without_a_warning(
    tmp_path: Path, frame: pd.DataFrame
) -> None:
    """Warnings are errors in this suite, so a clean return is the check."""
    assert len(_write(tmp_path, frame)) == 2 * len(_STEMS)


@pytest.mark.long
def test_without_a_rate_or_a_tradeoff_there_is_no_figure(tmp_path: Path) -> None:
    """All at once and closed loop; nor do figures of an earlier comparison stay."""
    (tmp_path / "tradeoff.csv").write_text(tradeoff_frame().to_csv(index=False))
    frame = compare_frame(rates=(1.0, 1.1))
    assert len(_write(tmp_path, frame)) == 8
    (tmp_path / "tradeoff.csv").unlink()
    frame["request_rate"] = [math.inf, math.inf, math.nan, math.nan]
    assert _write(tmp_path, frame) == []
    assert [path.name for path in tmp_path.iterdir()] == ["compare.csv"]


def test_bad_input_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    """A missing file and a missing column are the user's to mend."""
    with pytest.raises(ConfigError, match=r"compare\.csv: no such file"):
        write_compare_report(tmp_path)
    frame = compare_frame().drop(columns="energy_hbm_j")
    with pytest.raises(ConfigError, match=r"missing column\(s\) energy_hbm_j"):
        _write(tmp_path, frame)
    assert [path.name for path in tmp_path.iterdir()] == ["compare.csv"]
    (tmp_path / "tradeoff.csv").write_text("")
    with pytest.raises(ConfigError, match=r"tradeoff\.csv: not a readable"):
        _write(tmp_path, compare_frame())
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_write_leaves_the_old_file_and_no_partial_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target is replaced only after its new content is safe on disk."""
    with paper_style():
        figure = new_figure(1.0, "x")
    (tmp_path / "f.png").write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_figure(figure, tmp_path, "f")
    assert [path.name for path in tmp_path.iterdir()] == ["f.png"]
    assert (tmp_path / "f.png").read_bytes() == b"old"
