"""Headless Chromium for tests: found or skipped, and watched while a page is open."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

WIDTHS = (1280, 390)
_FLAGS = [
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Visit:
    """An open page and what it did that it should not.

    Attributes:
        page: The page.
        width: Of its window, in pixels.
        errors: Console errors and uncaught exceptions.
        requests: Everything fetched over a network, or tried to.
    """

    page: Any
    width: int
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def browser_or_skip() -> Iterator[Any]:
    """A browser; skips where Chromium or Playwright is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()


def watched(browser: Any, width: int) -> Visit:
    """An empty page whose errors and requests are noted."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    seen = Visit(page, width)
    page.on(
        "console",
        lambda message: message.type == "error" and seen.errors.append(message.text),
    )
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("request", lambda request: _note(seen, request.url))
    return seen


def visit(browser: Any, url: str, width: int) -> Iterator[Visit]:
    """Open a page and wait until its charts are drawn."""
    seen = watched(browser, width)
    page = seen.page
    page.goto(url)
    page.wait_for_selector("html[data-ready=yes]", state="attached", timeout=60_000)
    yield seen
    page.close()


def until(seen: Visit, expression: str) -> None:
    """Wait until an expression is true; polls, as the page forbids evaluation."""
    for _ in range(100):
        if seen.page.evaluate(expression):
            return
        seen.page.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


def _note(seen: Visit, url: str) -> None:
    if not url.startswith(("file:", "data:", "blob:")):
        seen.requests.append(url)
