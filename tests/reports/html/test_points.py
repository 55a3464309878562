"""Pages of sweeps and capacity studies, from files as those commands write them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reports.html.page import write_page
from reports.html.points import is_points, read_points
from reports.html.points_words import best_points
from reports.html.quantities import QUANTITIES
from reports.html.sections import MOST_ROWS
from sim.cli_report import read_results
from sim.errors import ConfigError
from tests.browser import WIDTHS, Visit, browser_or_skip, visit
from tests.reports.html.reading import elements, parsed, text_of, with_attribute
from tests.reports.html.test_page import HOSTILE


def _summary(compared: Path) -> dict[str, Any]:
    path = compared / "layered-prefill" / "rate-1.30" / "result.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _sweep(compared: Path, folder: Path, count: int = 60) -> pd.DataFrame:
    """A sweep's table: points that trade latency for energy, and a failed one."""
    base = _summary(compared)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        policy = ("chunked-prefill", "layered-prefill")[i % 2]
        varied = {"engine.scheduler": policy, "engine.max_num_seqs": 16 + i}
        changed = {
            "scheduler": policy,
            "mean_ttft_ms": 100.0 + 37 * (i % 11) + i,
            "p99_itl_ms": 90.0 - i,
            "energy_per_token_j": 0.05 + 0.001 * ((7 * i) % 13),
            "config_sha256": f"{i:064x}",
            "what_if": "cluster.flops_scale = 2" if i == 3 else None,
        }
        head = {"key": f"{i:x}", "status": "ok", "error": ""}
        rows.append(head | varied | base | changed)
    failed = {"key": "f", "status": "failed", "error": f"no room {HOSTILE}"}
    rows.append(rows[0] | failed | dict.fromkeys(base, math.nan))
    frame = pd.DataFrame(rows)
    frame.to_csv(folder / "points.csv", index=False)
    return frame


@pytest.fixture(scope="module")
def sweep(compared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    _sweep(compared, folder)
    write_page(read_results([folder]), folder / "report.html")
    return folder


@pytest.fixture(scope="module")
def capacity(compared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search over three rates under two seeds."""
    folder, base = tmp_path_factory.mktemp("capacity"), _summary(compared)
    rows = []
    for seed in range(2):
        for rate in (1.0, 2.0, 4.0):
            key = f"{seed}-{rate:g}"
            summary = {**base, "slo_attainment": 1.2 - rate / 4, "seed": seed}
            point = {
                "key": key,
                "config": {"seed": seed, "workload": {"request_rate": rate}},
                "summary": summary,
                "error": None,
            }
            path = folder / "points" / key / "point.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(point))
            row = {"seed": seed, "request_rate": rate, "slack": 0.1, "met": True}
            rows.append({**row, "unstable": False, "slo_attainment": 0.9, "key": key})
    pd.DataFrame(rows).to_csv(folder / "evaluations.csv", index=False)
    found = pd.DataFrame({"seed": [0, 1], "capacity_req_s": [1.2, math.inf]})
    found.to_csv(folder / "capacity.csv", index=False)
    write_page(read_results([folder]), folder / "report.html")
    return folder


def test_a_sweep_is_read_as_written(sweep: Path) -> None:
    assert is_points(sweep)
    points = read_points(sweep)
    assert len(points.points) == 60
    assert set(points.points[0].config) == {"engine.scheduler", "engine.max_num_seqs"}
    (line,) = points.failed
    assert "engine.max_num_seqs = 16" in line
    assert "no room" in line


def test_the_best_points_are_the_extremes_of_the_table(sweep: Path) -> None:
    frame = pd.read_csv(sweep / "points.csv").query("status == 'ok'")
    for best in best_points(read_points(sweep).points):
        key, less = best.quantity.key, best.quantity.less
        extreme = frame[key].min() if less else frame[key].max()
        assert best.value == best.quantity.text({key: extreme})
        row = frame[frame["config_sha256"] == best.run].iloc[0]
        assert row[key] == extreme
        assert f"engine.max_num_seqs = {row['engine.max_num_seqs']}" in best.where


def test_both_pages_are_valid_escaped_and_say_what_failed(
    sweep: Path, capacity: Path
) -> None:
    for folder in (sweep, capacity):
        root = parsed(folder / "report.html")
        assert not elements(root, "img")
        ids = [e.attrib["id"] for e in with_attribute(root, "id")]
        assert len(ids) == len(set(ids))
    said = text_of(parsed(sweep / "report.html"))
    assert "failed: engine.scheduler = chunked-prefill" in said
    assert "no room </script>" in said
    assert "What-if, not a machine that was profiled: layered-prefill, clu" in said


def test_a_capacity_study_shows_its_answer(capacity: Path) -> None:
    points = read_points(capacity)
    assert points.axes[0] == ("workload.request_rate", "slo_attainment")
    assert [caption for caption, _ in points.answers] == [
        "Highest rate by seed",
        "Every run of the search",
    ]
    cells = [text_of(cell) for cell in elements(parsed(capacity / "report.html"), "td")]
    assert "1.2" in cells
    assert "inf" in cells


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("points.csv", "a,b\n1,2\n", r"missing column\(s\) key, status, error, label"),
        (
            "points.csv",
            "key,status,error,label\n1,failed,x,\n",
            "no point has a result",
        ),
        (
            "points.csv",
            "key,status,error,label\n1,ok,,y\n",
            r"missing key\(s\) model_id",
        ),
        ("evaluations.csv", "a\n1\n", r"missing column\(s\) key"),
        ("evaluations.csv", "key\n../../x\n", r"point\.json: cannot be read"),
    ],
)
def test_bad_files_are_named(
    tmp_path: Path, file: str, content: str, message: str
) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_points(tmp_path)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    yield from browser_or_skip()


@pytest.fixture(params=WIDTHS)
def opened(
    chromium: Any, sweep: Path, request: pytest.FixtureRequest
) -> Iterator[Visit]:
    uri = (sweep / "report.html").as_uri()
    yield from visit(chromium, uri, request.param)


@pytest.mark.browser
def test_a_sweep_in_a_browser(opened: Visit, sweep: Path) -> None:
    """Numbers are those of points.csv; a range filter leaves what it says."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415

    page = opened.page
    frame = pd.read_csv(sweep / "points.csv").query("status == 'ok'")
    listed = page.eval_on_selector_all(
        "#explorer-table td[data-key=mean_ttft_ms]", "c => c.map((x) => x.innerText)"
    )
    quantity = QUANTITIES["mean_ttft_ms"]
    best = frame["mean_ttft_ms"].sort_values().head(MOST_ROWS)
    assert listed == [quantity.text({"mean_ttft_ms": value}) for value in best]
    page.fill("input[aria-label='engine.max_num_seqs to']", "25")
    left = (frame["engine.max_num_seqs"] <= 25).sum()
    assert f"{left} of {len(frame)} configurations" in page.inner_text(
        "#explorer-count"
    )
    page.select_option("select[data-axis='0-0']", "engine.max_num_seqs")
    assert opened.errors == []
    assert opened.requests == []
    found = Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in {"serious", "critical"}] == []


@pytest.mark.browser
def test_a_capacity_study_in_a_browser(chromium: Any, capacity: Path) -> None:
    uri = (capacity / "report.html").as_uri()
    for seen in visit(chromium, uri, WIDTHS[0]):
        field = seen.page.evaluate(
            "Bokeh.documents[0].get_model_by_name('explorer-points-0').glyph.x.field"
        )
        assert field == "workload.request_rate"
        assert seen.errors == []
