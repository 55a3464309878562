"""The page in headless Chromium: quiet, offline, and doing what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.browser import WIDTHS, Visit, browser_or_skip, until, visit

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    yield from browser_or_skip()


SHOWS = """((text) => {
  const walk = (root) => [...root.querySelectorAll("*")].some((element) =>
    element.shadowRoot && (element.shadowRoot.textContent.includes(text)
      || walk(element.shadowRoot)));
  return walk(document.body);
})"""
"""Whether a chart shows a text: charts and their hover boxes have shadow roots."""


@pytest.fixture(scope="module", params=WIDTHS)
def opened(
    chromium: Any, page: Path, request: pytest.FixtureRequest
) -> Iterator[Visit]:
    yield from visit(chromium, page.as_uri(), request.param)


def test_it_opens_quietly_and_offline(opened: Visit) -> None:
    assert opened.errors == []
    assert opened.requests == []
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    assert width <= opened.width
    drawn = opened.page.evaluate(
        "[...document.querySelectorAll('.chart')].filter((c) => c.offsetParent)"
        ".every((c) => c.firstElementChild && c.getBoundingClientRect().height > 150)"
    )
    assert drawn


def test_no_serious_accessibility_violation(opened: Visit) -> None:
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415

    for _ in ("light", "dark"):
        found = Axe().run(opened.page).response["violations"]
        serious = [v for v in found if v["impact"] in {"serious", "critical"}]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in serious] == []
        opened.page.click("#theme")


def _hover_first_point(opened: Visit) -> tuple[float, float]:
    """Move to the first kept point of the first explorer chart; returns where."""
    opened.page.locator("#chart-explorer-0").scroll_into_view_if_needed()
    at = opened.page.evaluate(
        """() => {
          const plot = Bokeh.documents[0].get_model_by_name("explorer-0");
          const view = Bokeh.index.find_one(plot);
          const points = Bokeh.documents[0].get_model_by_name("explorer-points-0");
          const i = points.view.filter.booleans.indexOf(true);
          const {x, y} = points.glyph, data = points.data_source.data;
          const box = view.el.getBoundingClientRect();
          return [
            box.x + view.frame.x_scale.compute(data[x.field][i]),
            box.y + view.frame.y_scale.compute(data[y.field][i]), i];
        }"""
    )
    opened.page.mouse.move(at[0], at[1])
    return at[0], at[1]


def test_hover_shows_the_configuration(opened: Visit) -> None:
    _hover_first_point(opened)
    until(opened, SHOWS + "('engine.scheduler')")


def test_a_click_pins_in_both_charts_and_the_table(opened: Visit) -> None:
    x, y = _hover_first_point(opened)
    opened.page.mouse.click(x, y)
    until(
        opened,
        "!document.getElementById('explorer-count').textContent.includes(' 0 pinned')",
    )
    chosen = opened.page.evaluate(
        "[0, 1].map((i) => Bokeh.documents[0].get_model_by_name(`explorer-points-${i}`)"
        ".data_source.selected.indices)"
    )
    assert chosen[0] == chosen[1]
    assert chosen[0]
    boxes = opened.page.locator("#explorer-table tbody input:checked")
    assert boxes.count() == len(chosen[0])
    opened.page.click("#explorer-clear")
    assert boxes.count() == 0


def test_a_pin_by_keyboard(opened: Visit) -> None:
    first = opened.page.locator("#explorer-table tbody input").nth(2)
    first.focus()
    opened.page.keyboard.press("Space")
    assert "1 pinned" in opened.page.inner_text("#explorer-count")
    assert opened.page.evaluate("document.activeElement.type") == "checkbox"


def test_filters_leave_what_they_say(opened: Visit, compared: Path) -> None:
    page = opened.page
    page.click("#explorer-all")
    page.click("#explorer-clear")
    rows = page.locator("#explorer-table tbody tr")
    every = rows.count()
    page.uncheck("fieldset[data-column] input[value='chunked-prefill']")
    left = rows.count()
    frames = [pd.read_csv(compared / f) for f in ("compare.csv", "tradeoff.csv")]
    table = pd.concat(frames).drop_duplicates("config_sha256")
    assert every == len(table)
    assert left == (table["scheduler"] == "layered-prefill").sum()
    assert "chunked-prefill" not in " ".join(rows.all_inner_texts())


def test_explorer_numbers_equal_the_files(opened: Visit, compared: Path) -> None:
    page = opened.page
    page.click("#explorer-all")
    page.click("#explorer-clear")
    shown = page.eval_on_selector_all(
        "#explorer-table td[data-key=mean_ttft_ms]",
        "cells => cells.map(c => c.innerText)",
    )
    frames = [pd.read_csv(compared / f) for f in ("compare.csv", "tradeoff.csv")]
    table = pd.concat(frames).drop_duplicates("config_sha256")
    expected = [f"{value / 1e3:.2f}" for value in sorted(table["mean_ttft_ms"])]
    assert shown == expected


def test_the_frontier_is_not_beaten(opened: Visit) -> None:
    """Against the definition, by brute force on the page's own points."""
    front, points = opened.page.evaluate(
        """() => {
          const get = (name) => Bokeh.documents[0].get_model_by_name(name);
          const line = get("explorer-front-0").data_source.data;
          const all = get("explorer-points-0"), data = all.data_source.data;
          const kept = [...all.view.filter.booleans.keys()].filter(
            (i) => all.view.filter.booleans[i]);
          const at = (i) => [data.mean_ttft_ms[i], data.p99_itl_ms[i]];
          return [[...line.x].map((x, i) => [x, line.y[i]]), kept.map(at)];
        }"""
    )
    expected = sorted(
        p
        for p in points
        if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)
    )
    assert front == expected


def test_axes_change(opened: Visit) -> None:
    opened.page.select_option("select[data-axis='1-0']", "hbm_bytes")
    label, field = opened.page.evaluate(
        """() => {
          const get = (name) => Bokeh.documents[0].get_model_by_name(name);
          return [get("explorer-1").below[0].axis_label,
                  get("explorer-points-1").glyph.x.field];
        }"""
    )
    assert (label, field) == ("HBM traffic (TB)", "hbm_bytes")
    assert opened.errors == []


def test_the_load_switches_cards_and_lines(opened: Visit) -> None:
    page = opened.page
    page.select_option("#load", "1.6 req/s")
    assert page.is_visible("text=layered-prefill against chunked-prefill at 1.6 req/s")
    assert not page.is_visible(
        "text=layered-prefill against chunked-prefill at 1.3 req/s"
    )
    visible = page.evaluate(
        "Bokeh.documents[0].get_model_by_name('cdf-ttft_ms').renderers"
        ".filter((r) => r.visible).map((r) => r.tags[0])"
    )
    assert visible == ["load:1.6 req/s"] * 2


def test_keys_zoom_a_chart(opened: Visit) -> None:
    range_of = (
        "(() => { const r = Bokeh.documents[0]"
        ".get_model_by_name('timeline-layered-prefill').x_range;"
        " return [r.start, r.end]; })()"
    )
    before = opened.page.evaluate(range_of)
    opened.page.focus("#chart-timeline-layered-prefill")
    opened.page.keyboard.press("+")
    after = opened.page.evaluate(range_of)
    assert after[1] - after[0] == pytest.approx((before[1] - before[0]) / 1.5)
    opened.page.keyboard.press("ArrowRight")
    assert opened.page.evaluate(range_of)[0] > after[0]
    other = opened.page.evaluate(range_of.replace("layered", "chunked"))
    assert other == opened.page.evaluate(range_of)


def test_themes_switch(opened: Visit) -> None:
    page = opened.page
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    ink = page.evaluate("Bokeh.documents[0].roots()[0].below[0].axis_label_text_color")
    assert ink == page.evaluate(
        "getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()"
    )


@pytest.mark.long
def test_hostile_names_run_no_script(
    chromium: Any, compared: Path, tmp_path: Path
) -> None:
    from reports.html.page import write_page  # noqa: PLC0415
    from reports.html.study import read_study  # noqa: PLC0415
    from tests.reports.html.test_page import HOSTILE  # noqa: PLC0415

    folder = tmp_path / "comparison"
    shutil.copytree(compared, folder)
    for path in [*folder.rglob("result.json"), *folder.rglob("config.toml")]:
        text = path.read_text().replace('"layered-prefill"', json.dumps(HOSTILE))
        if path.name == "config.toml":
            text = f"{json.dumps(HOSTILE)} = {sum(map(ord, str(path)))}\n{text}"
        path.write_text(text)
    target = tmp_path / "page.html"
    write_page(read_study([folder]), target)
    for opened in visit(chromium, target.as_uri(), WIDTHS[0]):
        opened.page.evaluate("() => { window.alert = () => { window.bad = 1; }; }")
        _hover_first_point(opened)
        opened.page.wait_for_timeout(300)
        assert opened.page.evaluate("window.bad === undefined")
        assert opened.page.locator("img").count() == 0
        assert opened.errors == []
