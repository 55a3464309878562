"""The what-if page in headless Chromium: from a slider's move to the new figures.

``python -m tests.benchmarks.bench_explore [KEY=VALUE...]`` starts ``servescope
explore`` as a user does (with these ``--set``) and moves the slider of the request
rate. Printed, not judged: the time from the key press until the frame after the new
numbers and charts are drawn, and the part of it that the server says it simulated.
"""

# ruff: noqa: T201  (printing is all it does)

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

_MOVES: Final = 20
_POLICY: Final = "layered-prefill"
_FIND: Final = """(selector) => {
  const walk = (root) => {
    const found = root.querySelector(selector);
    if (found) return found;
    for (const element of root.querySelectorAll("*")) {
      const inner = element.shadowRoot && walk(element.shadowRoot);
      if (inner) return inner;
    }
  };
  return walk(document);
}"""
# The table is made anew after the charts' data have come, so it is the last to change.
_MOVE: Final = f"""(key) => {{
  const find = {_FIND};
  const number = () => find('td[data-key="mean_ttft_ms"][data-policy="{_POLICY}"]');
  const before = number(), start = performance.now();
  find(".noUi-handle").dispatchEvent(new KeyboardEvent("keydown", {{key}}));
  return new Promise((done) => {{
    const look = () => requestAnimationFrame(() => {{
      if (number() === before) look();
      else requestAnimationFrame(() => requestAnimationFrame(
        () => done([performance.now() - start, find("[role=status]").textContent])));
    }});
    look();
  }});
}}"""


def main() -> None:
    """Print times of many moves: median and longest."""
    # An extra of the tests, not needed to import this module.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("no Chromium: apt-get install chromium")
    words = [word for text in sys.argv[1:] for word in ("--set", text)]
    code = f"from sim.cli import main; main({['explore', '--no-browser', *words]!r})"
    root = Path(__file__).parents[2]
    with (
        subprocess.Popen(
            [sys.executable, "-u", "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        ) as server,
        sync_playwright() as driver,
    ):
        assert server.stdout is not None
        url = server.stdout.readline().split()[2]
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            opened_s, moves = _visit(browser.new_page(), url)
        finally:
            browser.close()
            server.terminate()
    print(f"opened after {opened_s:.2f} s")
    for name, times in (
        ("until the new figures (target < 1)", [ms / 1e3 for ms, _ in moves]),
        ("of it simulated", [_simulated_s(text) for _, text in moves]),
    ):
        print(
            f"{name}: {statistics.median(times):.2f} s, at most {max(times):.2f} s"
            f" ({len(times)} moves)"
        )


def _visit(page: Any, url: str) -> tuple[float, list[tuple[float, str]]]:
    page.set_viewport_size({"width": 1280, "height": 900})
    start = time.perf_counter()
    page.goto(url)
    while not page.evaluate(f"!!({_FIND})('td[data-policy=\"{_POLICY}\"]')"):
        page.wait_for_timeout(20)
    opened_s = time.perf_counter() - start
    keys = ("ArrowRight", "ArrowLeft")
    moves = [page.evaluate(_MOVE, keys[i // 5 % 2]) for i in range(_MOVES)]
    return opened_s, [(ms, text) for ms, text in moves]


def _simulated_s(said: str) -> float:
    found = re.search(r"in ([0-9.]+) s", said)
    return float(found[1]) if found else float("nan")


if __name__ == "__main__":
    main()
