"""Pages of expert placements: numbers of the files, bad files, and in a browser."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.html.placements import (
    Placements,
    is_placements,
    layers_table,
    placements_of_runs,
    read_placements,
)
from reports.html.study import read_study
from sim.cli import main
from sim.errors import ConfigError
from tests.browser import WIDTHS, Visit, browser_or_skip, visit
from tests.reports.html.reading import elements, parsed, text_of
from workloads.routing.presets import preset


def _cli(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mixtral's experts on 4 GPUs, and the page."""
    folder = tmp_path_factory.mktemp("placed")
    words = ["--routing", "mistralai/Mixtral-8x7B-v0.1", "--gpus", "4"]
    words += ["--strategy", "linear,lpt", "--out", str(folder), "--quiet"]
    assert _cli("place", *words) == 0
    assert _cli("report", str(folder), "--quiet") == 0
    return folder


def _images(page: Path) -> list[np.ndarray]:
    """Every image in the page's charts, by order."""
    scripts = [
        e for e in elements(parsed(page), "script") if e.get("id") == "chart-data"
    ]
    found: list[np.ndarray] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("type") == "ndarray" and value["dtype"] == "float32":
                raw = gzip.decompress(base64.b64decode(value["array"]["data"]))
                found.append(np.frombuffer(raw, value["dtype"]).reshape(value["shape"]))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(json.loads(scripts[0].text or ""))
    return found


@pytest.mark.long
def test_maps_are_the_loads_of_the_routing_and_of_the_linear_placement(
    placed: Path,
) -> None:
    """Experts: the preset's own shares. GPUs: pairs of neighbours, summed by hand."""
    load = preset("mistralai/Mixtral-8x7B-v0.1").stats(0, groups=4).load
    experts, linear, lpt = _images(placed / "report.html")
    assert experts == pytest.approx(load * 8, abs=1e-5)
    assert linear == pytest.approx(load.reshape(32, 4, 2).sum(axis=2) * 4, abs=1e-5)
    assert lpt.max() <= linear.max()
    assert lpt.mean() == pytest.approx(1.0, abs=1e-5)


def test_tables_hold_the_numbers_of_the_maps(placed: Path) -> None:
    page = placed / "report.html"
    experts, *gpus = _images(page)
    table = layers_table(read_placements(placed))
    assert len(table.rows) == 32
    for layer, row in enumerate(table.rows):
        texts = [cell.text for cell in row]
        hottest = int(experts[layer].argmax())
        expected = [f"{experts[layer].max():.2f}"]
        expected += [f"{grid[layer].max():.2f}" for grid in gpus]
        assert texts == [str(layer), str(hottest), *expected]
    captions = [text_of(caption) for caption in elements(parsed(page), "caption")]
    assert any("Load by layer" in caption for caption in captions)
    cells = [text_of(cell) for cell in elements(parsed(page), "td")]
    par = pd.read_csv(placed / "place.csv")["load_par"]
    assert {f"{value:.2f}" for value in par} <= set(cells)


@pytest.mark.long
def test_a_page_of_runs_shows_placements_too(placed: Path, compared: Path) -> None:
    out = placed / "both.html"
    words = [str(compared), str(placed), "--out", str(out), "--json"]
    assert _cli("report", *words) == 0
    headings = [text_of(heading) for heading in elements(parsed(out), "h2")]
    assert {"Experts by layer", "Energy"} <= set(headings)
    assert _cli("report", str(placed), str(placed), "--out", str(out)) == 2


def test_a_page_of_points_shows_placements_too(placed: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(
        "config.workload.num_requests = 2\n[[vary]]\nseed = [0, 1]\n", "utf-8"
    )
    folder = tmp_path / "points"
    assert (
        _cli("sweep", str(study), "--out", str(folder), "--quiet", "--jobs", "1") == 0
    )
    assert _cli("report", str(folder), str(placed), "--json") == 0
    headings = [text_of(h) for h in elements(parsed(folder / "report.html"), "h2")]
    assert "Experts by layer" in headings


def test_placements_alone_count_no_runs(
    placed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _cli("report", str(placed), "--json") == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 0


PLACED_RUN = (
    *("parallel.tensor_parallel_size=1", "parallel.data_parallel_size=4"),
    *("parallel.expert_parallel_size=4", "cluster.gpus_per_node=4"),
    "workload.num_requests=4",
    *("workload.dataset=random", "workload.random_output_len=8"),
)

TOPICS = ("moe.topics=2", "moe.topic_period_s=0.5")


def _run(folder: Path, *overrides: str) -> Path:
    words = [w for text in (*PLACED_RUN, *overrides) for w in ("--set", text)]
    assert _cli("run", *words, "--out", str(folder), "--quiet") == 0
    return folder


@pytest.fixture(scope="module")
def placed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("placed") / "run"
    return _run(folder, "moe.placement=linear", "moe.statistics=preset")


def test_a_run_writes_the_loads_it_is_priced_with(placed_run: Path) -> None:
    """Experts: the preset's own shares. GPUs: 32 neighbours each, summed by hand."""
    load = preset("Qwen/Qwen3-30B-A3B").stats(0, groups=4).load
    experts = pd.read_csv(placed_run / "experts.csv.gz")["relative_load"]
    gpus = pd.read_csv(placed_run / "loads.csv.gz")["relative_load"]
    assert experts.to_numpy() == pytest.approx(load.ravel() * 128)
    by_hand = load.reshape(48, 4, 32).sum(axis=2) * 4
    assert gpus.to_numpy() == pytest.approx(by_hand.ravel())


def test_the_page_of_a_run_shows_its_loads_by_layer(placed_run: Path) -> None:
    """Maps and table hold the numbers of the run's files."""
    assert _cli("report", str(placed_run), "--quiet") == 0
    page = placed_run / "report.html"
    experts = pd.read_csv(placed_run / "experts.csv.gz")
    gpus = pd.read_csv(placed_run / "loads.csv.gz")
    shapes = {image.shape: image for image in _images(page)}
    for frame, shape in ((experts, (48, 128)), (gpus, (48, 4))):
        values = frame["relative_load"].to_numpy().reshape(shape)
        assert shapes[shape] == pytest.approx(values, abs=1e-5)
    (table,) = (
        table
        for table in elements(parsed(page), "table")
        if "Load by layer" in text_of(elements(table, "caption")[0])
    )
    rows = [[text_of(cell) for cell in row] for row in elements(table, "tr")[1:]]
    assert [row[3] for row in rows] == [
        f"{value:.2f}" for value in gpus.groupby("layer")["relative_load"].max()
    ]
    hottest = experts.loc[experts.groupby("layer")["relative_load"].idxmax()]
    assert [row[1] for row in rows] == [str(expert) for expert in hottest["expert"]]


def test_runs_share_a_placement_or_are_told_apart(
    placed_run: Path, tmp_path: Path
) -> None:
    def shown(*overrides: str) -> Placements | None:
        other = _run(tmp_path / "other", "seed=1", *overrides)
        return placements_of_runs(read_study([placed_run, other]))

    same = shown("moe.placement=linear", "moe.statistics=preset")
    assert same is not None
    assert same.strategies == ["linear"]
    assert "left out" not in same.note
    lpt = shown("moe.placement=lpt", "moe.statistics=preset")
    assert lpt is not None
    assert lpt.strategies == ["linear", "lpt"]
    elsewhere = shown("moe.placement=lpt", "moe.affinity=0.5")
    assert elsewhere is not None
    assert elsewhere.strategies == ["linear"]
    assert "1 run(s) with other routing are left out" in elsewhere.note
    # Fewer GPUs change the loads, not the routing.
    fewer = ("parallel.data_parallel_size=2", "parallel.expert_parallel_size=2")
    two = shown("moe.placement=linear", "moe.statistics=preset", *fewer)
    assert two is not None
    assert two.strategies[0] == "linear"
    assert two.strategies[1].startswith("linear (other")


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        pytest.param(
            ("moe.placement=lpt", "moe.statistics=preset", *TOPICS),
            marks=pytest.mark.long,
        ),
    ],
)
def test_without_a_lasting_placement_nothing_is_written_or_shown(
    placed_run: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    """Also where an earlier run in the same directory had one."""
    folder = tmp_path / "run"
    shutil.copytree(placed_run, folder)
    one = ("parallel.data_parallel_size=1", "parallel.expert_parallel_size=1")
    _run(folder, *(overrides or one))
    assert not (folder / "loads.csv.gz").exists()
    assert not (folder / "experts.csv.gz").exists()
    assert _cli("report", str(folder), "--quiet") == 0
    headings = [text_of(h) for h in elements(parsed(folder / "report.html"), "h2")]
    assert "Experts by layer" not in headings


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("place.csv", "strategy\nlinear\n", r"missing column\(s\) load_par"),
        ("experts.csv.gz", None, "no such file"),
        ("loads.csv.gz", "strategy,layer,gpu,relative_load\n", "no rows"),
        (
            "loads.csv.gz",
            "strategy,layer,gpu,relative_load\na,0,0,x\n",
            "relative_load: must be a number",
        ),
        (
            "loads.csv.gz",
            "strategy,layer,gpu,relative_load\na,0,0,1\n",
            "other strategies",
        ),
    ],
)
def test_bad_files_are_named(
    placed: Path, tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    for name in ("place.csv", "loads.csv.gz", "experts.csv.gz"):
        (tmp_path / name).write_bytes((placed / name).read_bytes())
    assert is_placements(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        frame_path = tmp_path / "frame.csv"
        frame_path.write_text(content)
        pd.read_csv(frame_path).to_csv(tmp_path / file, index=False)
    with pytest.raises(ConfigError, match=message):
        read_placements(tmp_path)


@pytest.fixture(params=WIDTHS)
def opened(placed: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    for chromium in browser_or_skip():
        yield from visit(chromium, (placed / "report.html").as_uri(), request.param)


@pytest.mark.browser
def test_in_a_browser(opened: Visit) -> None:
    """Quiet, as wide as the window, read aloud; hover names the load."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415

    page = opened.page
    chart = page.locator("#chart-heat-experts")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= opened.width
    assert opened.errors == []
    assert opened.requests == []
    found = Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in {"serious", "critical"}] == []
