"""The what-if page: what it simulates, and in headless Chromium what its inputs do."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from bokeh.document import Document
from bokeh.models import Div, Select, Slider

from reports.html.quantities import QUANTITIES
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.explore import REQUESTS, WhatIf, what_if
from sim.runner import run_config
from tests.browser import WIDTHS, Visit, browser_or_skip, until, watched

SMALL = {"workload.num_requests": 8}


def test_it_simulates_what_run_does() -> None:
    results = what_if(None, ["seed=2"], {**SMALL, "chunk": 1024})
    overrides = ["seed=2", "workload.num_requests=8"]
    chunked = [
        *overrides,
        "engine.scheduler=chunked-prefill",
        "engine.max_num_batched_tokens=1024",
    ]
    for name, words in (("chunked-prefill", chunked), ("layered-prefill", overrides)):
        expected = run_config(load_config(None, words)).summary
        assert results[name].summary == expected
    shas = {result.summary["workload_sha256"] for result in results.values()}
    assert len(shas) == 1


def test_what_cannot_run_is_said_and_leaves_the_page() -> None:
    document = Document()
    page = WhatIf(None, ["workload.dataset=random", "workload.random_output_len=8"])
    page.add_to(document)
    numbers = document.select_one({"name": "numbers"})
    status = document.select_one({"name": "status"})
    gpu = document.select_one({"name": "gpu"})
    assert isinstance(numbers, Div)
    assert isinstance(gpu, Select)
    before = numbers.text
    gpu.options = [*gpu.options, "<b>"]
    gpu.value = "<b>"
    assert "role='alert'" in status.text
    assert "&lt;b&gt;" in status.text
    assert "<b>" not in status.text
    assert numbers.text == before
    gpu.value = "h200_sxm"
    assert "role='status'" in status.text
    assert numbers.text != before


def test_the_page_says_how_long_a_small_simulation_took() -> None:
    document = Document()
    WhatIf(None, ["workload.dataset=random", "workload.random_output_len=8"]).add_to(
        document
    )
    status, rate = (document.select_one({"name": n}) for n in ("status", "rate"))
    assert isinstance(status, Div)
    assert isinstance(rate, Slider)
    taken = r"Simulated both policies in (\d+\.\d\d) s\.</p>$"
    assert re.search(taken, status.text)
    numbers = document.select_one({"name": "numbers"})
    assert isinstance(numbers, Div)
    before = numbers.text
    rate.value = 2.0
    rate.trigger("value_throttled", 1.3, 2.0)
    assert re.search(taken, status.text)
    assert numbers.text != before


def test_a_placement_spreads_experts_over_the_gpus_of_a_replica() -> None:
    overrides = ["workload.dataset=random", "workload.random_output_len=8"]
    document = Document()
    WhatIf(None, overrides).add_to(document)
    placement, numbers = (
        document.select_one({"name": name}) for name in ("placement", "numbers")
    )
    assert isinstance(placement, Select)
    assert isinstance(numbers, Div)
    placement.value = "lpt"
    placed = [
        *("parallel.expert_parallel_size=2", "moe.placement=lpt"),
        *(f"workload.num_requests={REQUESTS}", "engine.scheduler=layered-prefill"),
    ]
    summary = run_config(load_config(None, [*overrides, *placed])).summary
    quantity = QUANTITIES["mean_e2el_ms"]
    cell = f'data-key="{quantity.key}" data-policy="layered-prefill"'
    shown = re.search(rf"{cell}[^>]*>([^<]*)<", numbers.text)
    assert shown is not None
    assert shown[1] == quantity.text(summary)


def test_a_bad_configuration_is_refused_before_anything_is_served() -> None:
    from sim.cli_explore import explore_command  # noqa: PLC0415

    with pytest.raises(ConfigError, match=r"cluster\.gpu"):
        explore_command(None, ["cluster.gpu=abacus"], port=0, show=False)


def test_it_is_served_to_this_machine_until_interrupted(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A socket of 127.0.0.1 that answers, the browser sent there, and a quiet end."""
    from tornado.platform.asyncio import BaseAsyncIOLoop  # noqa: PLC0415

    from sim import cli_explore  # noqa: PLC0415

    opened: list[str] = []
    monkeypatch.setattr(cli_explore.typer, "launch", opened.append)

    def reach_then_interrupt(_: BaseAsyncIOLoop) -> None:
        where = urlsplit(opened[0])
        assert where.hostname == "127.0.0.1"
        with socket.create_connection((where.hostname, where.port or 0), timeout=5):
            raise KeyboardInterrupt

    monkeypatch.setattr(BaseAsyncIOLoop, "start", reach_then_interrupt)
    cli_explore.explore_command(None, [], port=0, show=True)
    assert f"servescope explore: {opened[0]} (Ctrl-C" in capfd.readouterr().out


# Tornado drops the socket that it could not bind without closing it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_port_that_is_taken_is_one_clear_line() -> None:
    from sim.cli_explore import HOST, explore_command  # noqa: PLC0415

    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port = {port}: Address already"):
            explore_command(None, [], port=port, show=False)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The page of a server of its own, as the command starts it."""
    pytest.importorskip("playwright.sync_api", reason="no Playwright")
    words = ["explore", "--no-browser", "--set", "workload.random_output_len=16"]
    words += ["--set", "workload.dataset=random"]
    code = f"from sim.cli import main; main({words!r})"
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[2]
        process.terminate()


@pytest.fixture(scope="module", params=WIDTHS)
def opened(url: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    for chromium in browser_or_skip():
        seen = watched(chromium, request.param)
        seen.page.goto(url)
        until(seen, f"{_CELL % ('mean_ttft_ms', 'layered-prefill')} !== undefined")
        yield seen
        seen.page.close()


_CELL = """((key, policy) => {
  const walk = (root) => {
    const found = root.querySelector(`td[data-key="${key}"][data-policy="${policy}"]`);
    if (found) return found;
    for (const element of root.querySelectorAll("*")) {
      const inner = element.shadowRoot && walk(element.shadowRoot);
      if (inner) return inner;
    }
  };
  return walk(document)?.innerText;
})("%s", "%s")"""


def _shown(opened: Visit, key: str, policy: str) -> Any:
    return opened.page.evaluate(_CELL % (key, policy))


@pytest.mark.browser
def test_it_answers_this_machine_only_and_quietly(opened: Visit, url: str) -> None:
    assert urlsplit(url).hostname == "127.0.0.1"
    assert {urlsplit(address).hostname for address in opened.requests} == {"127.0.0.1"}
    assert opened.errors == []
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    assert width <= opened.width


@pytest.mark.browser
def test_sliders_and_lists_simulate_again(opened: Visit) -> None:
    """Numbers on the page are those of the same configurations, to the digit."""
    settings: dict[str, Any] = {"workload.num_requests": REQUESTS, "chunk": 512}
    overrides = ["workload.random_output_len=16", "workload.dataset=random"]

    def _agree() -> None:
        results = what_if(None, overrides, settings)
        for name, result in results.items():
            for key in ("mean_ttft_ms", "p99_itl_ms", "energy_per_token_j"):
                expected = QUANTITIES[key].text(result.summary)
                cell = _CELL % (key, name)
                until(opened, f"{cell} === {expected!r}")

    _agree()
    handles = opened.page.locator(".noUi-handle")
    handles.nth(0).focus()
    for _ in range(4):
        opened.page.keyboard.press("ArrowRight")
    settings["workload.request_rate"] = 1.3 + 4 * 0.05
    _agree()
    opened.page.locator("select").nth(0).select_option("2048")
    settings["chunk"] = 2048
    _agree()
    opened.page.locator("select").nth(2).select_option("h200_sxm")
    settings["cluster.gpu"] = "h200_sxm"
    _agree()
    assert opened.errors == []


@pytest.mark.browser
def test_no_serious_accessibility_violation(opened: Visit) -> None:
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415

    opened.page.wait_for_timeout(1000)  # names are given twice a second
    found = Axe().run(opened.page).response["violations"]
    serious = [v for v in found if v["impact"] in {"serious", "critical"}]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in serious] == []
