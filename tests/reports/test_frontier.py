"""Frontiers of sweep tables: by hand, and the files of the report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from reports.frontier import frontiers, shift_frame
from reports.pareto_report import labels_of, pareto_sets, write_pareto
from reports.points import objective, read_points
from reports.terminal_plot import frontier_text
from sim.cli import app
from sim.errors import ConfigError


def points(rows: list[tuple[str, int, int, float, float]]) -> pd.DataFrame:
    """A made-up table: scheduler, chunk, seed, mean TTFT in ms, p99 TBT in ms."""
    return pd.DataFrame(
        [
            {
                "key": str(i),
                "status": "ok",
                "error": "",
                "engine.scheduler": name,
                "engine.max_num_batched_tokens": chunk,
                "seed": seed,
                "label": name,
                "scheduler": name,
                "mean_ttft_ms": ttft,
                "p99_itl_ms": tbt,
                "unstable": False,
            }
            for i, (name, chunk, seed, ttft, tbt) in enumerate(rows)
        ]
    )


HAND = points(
    [
        ("chunked-prefill", 1, 0, 1000, 40),
        ("chunked-prefill", 2, 0, 2000, 20),
        ("chunked-prefill", 3, 0, 3000, 30),
        ("layered-prefill", 1, 0, 500, 36),
        ("layered-prefill", 2, 0, 1500, 18),
    ]
)


def test_fronts_and_shifts_by_hand() -> None:
    """At TTFT <= 1 s: 36 for 40 ms; <= 2 s: 18 for 20. At TBT <= 40: .5 for 1 s."""
    _, found = pareto_sets(HAND, [("ttft", "tbt")])[0]
    assert found.on_group.tolist() == [True, True, False, True, True]
    assert found.on_joint.tolist() == [False, False, False, True, True]
    shift = shift_frame(found, "chunked-prefill").set_index("group")
    layered = shift.loc["layered-prefill"]
    assert layered["y_change_percent_at_equal_x"] == pytest.approx(-10.0)
    assert layered["x_change_percent_at_equal_y"] == pytest.approx(
        100 * (0.5 / 1 + 1.5 / 2) / 2 - 100
    )
    # reference (3.25, 42.2), box 2.75 x 24.2
    box = 2.75 * 24.2
    chunked_area = (2 - 1) * 2.2 + (3.25 - 2) * 22.2
    layered_area = (1.5 - 0.5) * 6.2 + (3.25 - 1.5) * 24.2
    assert shift["hypervolume_percent"].tolist() == pytest.approx(
        [100 * chunked_area / box, 100 * layered_area / box]
    )
    assert layered["hypervolume_change_percent"] == pytest.approx(
        100 * (layered_area / chunked_area - 1)
    )


def test_seeds_are_averaged_and_growing_queues_left_out() -> None:
    """One setting, two seeds; another whose second seed was unstable."""
    table = points(
        [
            ("orca", 1, 0, 1000, 40),
            ("orca", 1, 1, 3000, 60),
            ("orca", 2, 0, 100, 10),
            ("orca", 2, 1, 100, 10),
        ]
    )
    table.loc[3, "unstable"] = True
    _, found = pareto_sets(table, [("ttft", "tbt")])[0]
    assert found.values[0].tolist() == [2.0, 50.0]
    assert np.isnan(found.values[1]).all()
    assert found.on_joint.tolist() == [True, False]


def test_three_objectives_and_maximising() -> None:
    """A point may win by the third alone."""
    names = ("ttft", "tbt", "engine.max_num_batched_tokens:max")
    chosen = tuple(objective(name, HAND) for name in names)
    found = frontiers(HAND, chosen)
    assert found.on_joint.tolist() == [False, False, True, True, True]
    assert "y_change_percent_at_equal_x" not in shift_frame(found, "layered-prefill")


@pytest.mark.long
def test_files_and_labels(tmp_path: Path) -> None:
    """Tables, PNG and SVG; labels say what differs inside a group."""
    sets = pareto_sets(HAND, [("ttft", "tbt")])
    paths = write_pareto(sets, tmp_path)
    assert sorted(p.name for p in paths) == [
        "pareto-shift.csv",
        "pareto-ttft-tbt.csv",
        "pareto-ttft-tbt.png",
        "pareto-ttft-tbt.svg",
    ]
    before = [p.read_bytes() for p in paths]
    assert [p.read_bytes() for p in write_pareto(sets, tmp_path)] == before
    assert labels_of(sets[0][1]) == ["1", "2", "3", "1", "2"]
    table = pd.read_csv(tmp_path / "pareto-ttft-tbt.csv")
    assert table["on_joint_front"].sum() == 2
    three = [("ttft", "tbt", "engine.max_num_batched_tokens:max")]
    names = {p.suffix for p in write_pareto(pareto_sets(HAND, three), tmp_path)}
    assert names == {".csv", ".png", ".svg"}


def test_terminal_plot_marks_every_point() -> None:
    """A letter per group, large on its frontier; least TTFT left, least TBT below."""
    _, found = pareto_sets(HAND, [("ttft", "tbt")])[0]
    lines = frontier_text(found)
    assert max(map(len, lines)) <= 80
    body = [line[11:] for line in lines if " |" in line]
    text = "".join(body)
    assert [text.count(mark) for mark in "AaBb"] == [2, 1, 2, 0]
    assert body[0].strip() == "A"  # 40 ms, the largest
    assert body[-1].strip() == "B"  # 18 ms
    assert min(line.find("B") for line in body if "B" in line) == 0  # 0.5 s
    assert lines[-3:-1] == ["A chunked-prefill", "B layered-prefill"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ttfb", "no such metric"),
        ("mean_ttft_ms", "say"),
        ("ttft:up", "min or max"),
        ("scheduler:min", "no such metric"),
    ],
)
def test_unknown_metrics_are_refused(name: str, words: str) -> None:
    """With what is allowed."""
    with pytest.raises(ConfigError, match=words):
        objective(name, HAND)


def test_bad_tables_are_refused(tmp_path: Path) -> None:
    """Missing, foreign, without a finished point; an unknown group or baseline."""
    with pytest.raises(ConfigError, match="no such file"):
        read_points(tmp_path)
    (tmp_path / "points.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="missing column"):
        read_points(tmp_path)
    (tmp_path / "points.csv").write_text("status,scheduler\nfailed,\n")
    with pytest.raises(ConfigError, match="no finished point"):
        read_points(tmp_path)
    with pytest.raises(ConfigError, match="no such column"):
        frontiers(HAND, (objective("ttft", HAND), objective("tbt", HAND)), "gpus")
    lost = HAND.assign(mean_ttft_ms=math.nan)
    with pytest.raises(ConfigError, match="no point has all"):
        pareto_sets(lost, [("ttft", "tbt")])
    _, found = pareto_sets(HAND, [("ttft", "tbt")])[0]
    with pytest.raises(ConfigError, match="no such group"):
        shift_frame(found, "orca")


def test_the_command(tmp_path: Path) -> None:
    """From a sweep's table, text and JSON."""
    HAND.to_csv(tmp_path / "points.csv", index=False)
    words = ["pareto", str(tmp_path), "--metrics", "ttft,tbt"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0
    assert "ttft / tbt, against chunked-prefill" in shown.stdout
    lines = shown.stdout.splitlines()[:-1]
    assert max(map(len, lines)) <= 80
    document = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert len(document[0]["joint_front"]) == 2
    bad = CliRunner().invoke(app, ["pareto", str(tmp_path), "--metrics", "ttft"])
    assert isinstance(bad.exception, ConfigError)
