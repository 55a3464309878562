"""The report of a sweep of 2,000 points in headless Chromium; printed, not judged.

``python -m tests.benchmarks.bench_report [POINTS]`` prints the size of the page, the
time to write it, the time until it is interactive (charts drawn, controls answering)
and the time a filter takes with filters, charts and table in view: until table and
count are right, and until the frame after the charts are drawn again. One run is
simulated; its result is varied into points, as only their number matters here.
"""

# ruff: noqa: T201  (printing is all it does)

from __future__ import annotations

import shutil
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pandas as pd

from reports.html.page import write_page
from reports.html.points import read_points
from sim.config_file import load_config
from sim.runner import run_config

_POINTS: Final = 2000
_REPEATS: Final = 5
_FILTER: Final = """() => {
  const field = document.querySelector("input[aria-label$=' to']");
  document.getElementById("explorer").scrollIntoView();
  const half = (limit) => {
    const start = performance.now();
    field.value = limit;
    field.dispatchEvent(new Event("input", {bubbles: true}));
    document.body.offsetHeight;
    const listed = performance.now() - start;
    return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(
      () => done([listed, performance.now() - start]))));
  };
  return (async () => {
    const times = [];
    for (const limit of ["40", "", "20", "", "60"]) times.push(await half(limit));
    return [times, document.getElementById("explorer-count").textContent];
  })();
}"""


def points_frame(count: int) -> pd.DataFrame:
    """A table as ``servescope sweep`` writes it, of so many points."""
    summary = run_config(load_config(None, ["workload.num_requests=20"])).summary
    index = np.arange(count)
    policies = np.array(["chunked-prefill", "layered-prefill"])[index % 2]
    base = {key: [value] * count for key, value in summary.items()}
    spread = np.random.default_rng(0).uniform(0.5, 2.0, (3, count))
    changed = {
        "scheduler": policies,
        "config_sha256": [f"{i:064x}" for i in index],
        "mean_ttft_ms": spread[0] * summary["mean_ttft_ms"],
        "p99_itl_ms": spread[1] * summary["p99_itl_ms"],
        "energy_per_token_j": spread[2] * summary["energy_per_token_j"],
    }
    head = {
        "key": [f"{i:x}" for i in index],
        "status": "ok",
        "error": "",
        "engine.scheduler": policies,
        "engine.max_num_seqs": 16 + index % 97,
        "workload.request_rate": 1.0 + index % 31 / 20,
        "label": policies,
    }
    return pd.DataFrame(head | base | changed)


def main() -> None:
    """Print sizes and times, medians of five."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else _POINTS
    with TemporaryDirectory() as name:
        folder = Path(name)
        points_frame(count).to_csv(folder / "points.csv", index=False)
        page = folder / "report.html"
        start = time.perf_counter()
        write_page(read_points(folder), page)
        print(f"{count} points: page of {page.stat().st_size / 1e6:.1f} MB", end=" ")
        print(f"written in {time.perf_counter() - start:.1f} s")
        _browse(page)


def _browse(page: Path) -> None:
    # An extra of the tests, not needed to import this module.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("no Chromium: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        opened = [_visit(browser, page) for _ in range(_REPEATS)]
        browser.close()
    ready_s = statistics.median(ready for ready, _, _ in opened)
    listed_ms, drawn_ms = zip(
        *(pair for _, pairs, _ in opened for pair in pairs), strict=True
    )
    print(f"interactive after {ready_s:.2f} s (target < 2)")
    print(
        f"a filter: table after {statistics.median(listed_ms):.0f} ms, charts after"
        f" {statistics.median(drawn_ms):.0f} ms, at most {max(drawn_ms):.0f} ms"
        f" (target < 100); last: {opened[0][2]}"
    )


def _visit(browser: Any, page: Path) -> tuple[float, list[list[float]], str]:
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    start = time.perf_counter()
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-ready=yes]", state="attached", timeout=60_000)
    ready_s = time.perf_counter() - start
    times, said = tab.evaluate(_FILTER)
    tab.close()
    return ready_s, times, said


if __name__ == "__main__":
    main()
