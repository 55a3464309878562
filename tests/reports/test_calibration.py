"""Figures of a calibration: every point and error of the frames is drawn, once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from reports.calibration import coverage_figure, error_figure
from reports.figures import save_figure

KEYS = {"x_key": "step", "y_key": "batch_size"}


def points() -> pd.DataFrame:
    """Two GPUs profiled alike, one with fewer points; batches 2 and 16."""
    places = [(1, "2", 4), (64, "2", 4), (1, "16", 2)]
    rows = [
        {"gpu": gpu, "framework": "vllm", "table": table, "x": x, "y": y, "rows": n}
        for gpu, kept in (("a", 3), ("b", 3), ("c", 2))
        for table in ("decode_attention", "other")
        for x, y, n in places[:kept]
    ]
    return pd.DataFrame(rows).assign(**KEYS)


def test_gpus_profiled_alike_share_a_panel() -> None:
    """Panel titles name their GPUs; markers lie at the points."""
    figure = coverage_figure(points(), "decode_attention")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["vllm: a, b", "vllm: c"]
    (markers,) = (
        c for c in figure.axes[0].collections if isinstance(c, PathCollection)
    )
    assert np.asarray(markers.get_offsets()).tolist() == [[1, 0], [64, 0], [1, 1]]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["2", "16"]  # as numbers, not as words
    assert figure.get_supxlabel() == "Past KV length (tokens)"


def test_splits_stand_in_numerical_order() -> None:
    frame = points().replace({"y": {"2": "2 x 1", "16": "1 x 16"}})
    axes = coverage_figure(frame, "other").axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["1 x 16", "2 x 1"]


def test_every_error_has_a_marker_in_its_line() -> None:
    """In per cent, on the line of its kernel; GPUs beside each other."""
    rows = [
        ("h100", "gemm", "m", "fp8", 0.05, 0.1),
        ("h100", "moe", "num_tokens", "fp8", 0.02, 0.3),
        ("l40s", "moe", "num_tokens", "fp8", 0.04, 0.06),
    ]
    frame = pd.DataFrame(
        rows, columns=["gpu", "table", "axis", "variant", "mape", "p90"]
    )
    axes = error_figure(frame).axes[0]
    drawn = {line.get_label(): line.get_xydata() for line in axes.lines}
    assert drawn["h100"][:, 0] == pytest.approx([5, 2])
    assert drawn["l40s"][:, 0] == pytest.approx([4])
    assert [round(y) for y in drawn["h100"][:, 1]] == [0, 1]
    assert [round(y) for y in drawn["l40s"][:, 1]] == [1]
    assert drawn["l40s"][0, 1] != drawn["h100"][1, 1]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "gemm, fp8 (m)",
        "moe, fp8 (num_tokens)",
    ]


def test_a_figure_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        paths = save_figure(coverage_figure(points(), "other"), tmp_path, name)
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
