"""The page as a document: valid, offline, escaped, and true to the result files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reports.html.embed import read_asset
from reports.html.page import MAX_BYTES, render_page
from reports.html.quantities import QUANTITIES
from reports.html.study import read_study
from reports.style import BLUE, VERMILLION
from sim.errors import ConfigError
from tests.reports.html.reading import elements, parsed, text_of, with_attribute

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<!--"


def _summaries(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in folder.rglob("result.json")]
    return {summary["config_sha256"]: summary for summary in found}


def test_the_page_is_valid_html_and_small_enough(page: Path) -> None:
    root = parsed(page)
    assert page.stat().st_size < MAX_BYTES
    ids = [element.attrib["id"] for element in with_attribute(root, "id")]
    assert len(ids) == len(set(ids))
    anchors = [a.attrib["href"] for a in elements(root, "a")]
    assert {href.removeprefix("#") for href in anchors} <= set(ids)


def test_the_page_asks_for_nothing(page: Path) -> None:
    """No element loads anything, and the page forbids its scripts to do so."""
    root = parsed(page)
    assert not with_attribute(root, "src")
    assert not elements(root, "link")
    assert all(a.attrib["href"].startswith("#") for a in elements(root, "a"))
    (policy,) = (
        meta.attrib["content"]
        for meta in elements(root, "meta")
        if meta.attrib.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    scripts = policy.partition("script-src")[2].partition(";")[0]
    assert "unsafe" not in scripts


def test_numbers_equal_those_of_the_result_files(page: Path, compared: Path) -> None:
    """Every marked number is the rounded value of its key in its run's file."""
    summaries = _summaries(compared)
    marked = with_attribute(parsed(page), "data-run")
    for element in marked:
        key = element.attrib["data-key"]
        value = summaries[element.attrib["data-run"]][key]
        quantity = QUANTITIES[key]
        expected = f"{value * quantity.factor:.{quantity.decimals}f}"
        assert text_of(element).replace("\N{MINUS SIGN}", "-") == expected
    shown = {element.attrib["data-run"] for element in marked}
    table = pd.read_csv(compared / "compare.csv")
    assert shown == set(table["config_sha256"])
    assert len(marked) > 6 * 15


def test_a_first_reader_finds_the_three_answers(page: Path) -> None:
    headings = {text_of(heading) for heading in elements(parsed(page), "h3")}
    assert {
        "What layered-prefill gained",
        "What it cost",
        "How sure that is",
    } <= headings


@pytest.mark.long
def test_the_same_files_give_the_same_bytes(compared: Path) -> None:
    assert render_page(read_study([compared])) == render_page(read_study([compared]))


def test_hostile_names_are_text(compared: Path, tmp_path: Path) -> None:
    """Names from files, folders and configurations cannot become elements."""
    folder = tmp_path / "<b>bold<"
    shutil.copytree(compared, folder)
    for path in [*folder.rglob("result.json"), *folder.rglob("config.toml")]:
        text = path.read_text()
        evil = json.dumps(HOSTILE)
        for name in ("layered-prefill", "arxiv", "h100_sxm"):
            text = text.replace(f'"{name}"', evil)
        if path.name == "config.toml":
            key = json.dumps(f"key {HOSTILE}")
            number = sum(map(ord, str(path.parent)))
            text = f"{key} = {number}\n{text}"
        path.write_text(text)
    target = tmp_path / "page.html"
    target.write_text(render_page(read_study([folder])))
    root = parsed(target)
    plain = parsed(_written(compared, tmp_path / "plain.html"))
    assert not elements(root, "img")
    assert not elements(root, "b")
    assert len(elements(root, "script")) == len(elements(plain, "script"))
    assert HOSTILE in "".join(root.itertext())


def _written(folder: Path, path: Path) -> Path:
    path.write_text(render_page(read_study([folder])))
    return path


def test_everything_that_can_be_done_can_be_reached_by_key(page: Path) -> None:
    """Charts and scrolling tables take the focus; inputs and buttons have names."""
    root = parsed(page)
    for element in with_attribute(root, "class"):
        if element.attrib["class"] in {"chart", "table"}:
            assert element.attrib["tabindex"] == "0"
            assert element.attrib["aria-label"]
    for button in elements(root, "button"):
        assert text_of(button) or button.attrib.get("aria-label")
    labels = [box for label in elements(root, "label") for box in label.iter()]
    for box in (*elements(root, "input"), *elements(root, "select")):
        assert box in labels or box.attrib.get("aria-label")
    assert elements(root, "html")[0].attrib["lang"] == "en"


def _luminance(color: str) -> float:
    """Relative luminance (WCAG 2.2) of "#rrggbb"."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
    ]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_contrast_enough(theme: int) -> None:
    """WCAG 2.2 AA: 4.5 for text, 3 for the policies' lines."""
    block = re.findall(r":root[^{]*\{([^}]*)\}", read_asset("page.css"))[theme]
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
    for back in ("back", "raised"):
        for name in ("ink", "soft", "link", "better", "worse"):
            assert _contrast(colors[name], colors[back]) >= 4.5, (name, back)
    for color in (BLUE, VERMILLION):
        assert _contrast(color, colors["back"]) >= 3


@pytest.mark.long
def test_a_page_that_is_too_large_is_refused(
    compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reports.html.page.MAX_BYTES", 1_000_000)
    with pytest.raises(ConfigError, match="more than 1 MB; report fewer runs"):
        render_page(read_study([compared]))
