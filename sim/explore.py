"""The what-if page: sliders, and both prefill policies simulated again at each move."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models import Div, Select, Slider

from calibration.hardware import gpu_names
from reports.html.charts.live import LiveRun, LiveView
from reports.html.embed import read_asset
from sim.build import check_registered
from sim.config import Config
from sim.config_file import load_config
from sim.config_sections import CHUNK_TOKENS, CHUNKED_PREFILL
from sim.errors import ConfigError, SimulationError
from sim.placement import PLACEMENTS
from sim.results import RunResult
from sim.runner import run_config
from sim.tradeoff import LAYERED_PREFILL

POLICIES: Final = (CHUNKED_PREFILL, LAYERED_PREFILL)
REQUESTS: Final = 30
"""Served after a move of a slider: both policies in under a second."""
_CHUNKS: Final = (256, 512, 1024, 2048, 4096, 8192)
_GROUPS: Final = (1, 2, 4, 8, 16, 24)
_EVEN: Final = "even load, no placement"

Settings = dict[str, Any]


def what_if(
    path: Path | None, overrides: Sequence[str], settings: Settings
) -> dict[str, RunResult]:
    """Simulate both policies on the same requests.

    Args:
        path: Configuration file or None.
        overrides: ``key=value`` texts of ``--set``.
        settings: Keys that the page sets, over both. ``chunk`` is the token budget of
            chunked prefill; layered prefill keeps its usual one.

    Raises:
        ConfigError: If the configuration cannot run.
        SimulationError: If a scheduler breaks an invariant.
    """
    shared = {key: value for key, value in settings.items() if key != "chunk"}
    results = {}
    for policy in POLICIES:
        own: Settings = {"engine.scheduler": policy}
        if policy == CHUNKED_PREFILL and "chunk" in settings:
            own["engine.max_num_batched_tokens"] = settings["chunk"]
        config = load_config(path, overrides, shared | own, check_registered)
        results[policy] = run_config(config)
    return results


class WhatIf:
    """One visitor's page.

    Args:
        path: Configuration file or None.
        overrides: ``key=value`` texts of ``--set``.
    """

    def __init__(self, path: Path | None, overrides: Sequence[str]) -> None:
        self._path, self._overrides = path, overrides
        self._view = LiveView(POLICIES)
        self._status = Div(sizing_mode="stretch_width", name="status")
        self._base = load_config(path, overrides)
        self._inputs = _inputs(self._base, self._again)

    def add_to(self, document: Document) -> None:
        """Put the page into a document and simulate once."""
        view = self._view
        controls = row(
            *self._inputs.values(), sizing_mode="stretch_width", styles=_WRAPPING
        )
        curves = row(*view.curves, sizing_mode="stretch_width", styles=_WRAPPING)
        for chart in view.curves:
            chart.styles = {"flex": "1 1 20rem", "min-width": "18rem"}
        document.title = "servescope: what if"
        document.template = read_asset("explore.html")
        document.add_root(
            column(
                controls,
                self._status,
                curves,
                *view.timelines,
                view.table,
                sizing_mode="stretch_width",
            )
        )
        self._simulate()

    def _again(self, _attribute: str, _old: object, _new: object) -> None:
        self._simulate()

    def _simulate(self) -> None:
        """Show what the inputs say, or why it cannot be simulated."""
        settings = _settings(self._base, self._inputs)
        start_s = time.perf_counter()
        try:
            results = what_if(self._path, self._overrides, settings)
        except (ConfigError, SimulationError) as error:
            self._status.text = f"<p role='alert'>{escape(str(error))}</p>"
            return
        took_s = time.perf_counter() - start_s
        self._view.show(
            {
                name: LiveRun(result.summary, result.requests, result.steps)
                for name, result in results.items()
            }
        )
        self._status.text = f"<p role='status'>{escape(_said(results, took_s))}</p>"


_WRAPPING: Final = {"flex-wrap": "wrap"}


def _inputs(base: Config, again: Callable[[str, object, object], None]) -> Settings:
    rate = base.workload.request_rate
    known = gpu_names()
    inputs: Settings = {
        "workload.request_rate": Slider(
            title="request rate (req/s)",
            start=0.2,
            end=max(4.0, 2 * rate),
            step=0.05,
            value=rate,
            name="rate",
        ),
        "chunk": Select(
            title="chunk of chunked prefill (tokens)",
            options=[str(chunk) for chunk in _CHUNKS],
            value=str(base.engine.max_num_batched_tokens or CHUNK_TOKENS),
            name="chunk",
        ),
        "engine.num_layer_groups": Select(
            title="layer groups of layered prefill",
            options=[str(groups) for groups in _GROUPS],
            value=str(base.engine.num_layer_groups),
            name="groups",
        ),
        "cluster.gpu": Select(
            title="GPU", options=list(known), value=base.cluster.gpu, name="gpu"
        ),
        "cluster.hbm_bandwidth_scale": Slider(
            title="HBM bandwidth (times the GPU's)",
            start=0.5,
            end=3.0,
            step=0.1,
            value=base.cluster.hbm_bandwidth_scale,
            name="bandwidth",
        ),
        "moe.placement": Select(
            title="experts placed on GPUs by",
            options=[_EVEN, *PLACEMENTS],
            value=base.moe.placement or _EVEN,
            name="placement",
        ),
        "workload.num_requests": Slider(
            title="requests",
            start=10,
            end=400,
            step=10,
            value=REQUESTS,
            name="requests",
        ),
    }
    for box in inputs.values():
        changed = "value_throttled" if isinstance(box, Slider) else "value"
        box.on_change(changed, again)
        box.width = 210
    return inputs


def _settings(base: Config, inputs: Settings) -> Settings:
    """What the inputs say; placed experts are spread over all GPUs of a replica."""
    settings = {key: _value(key, box) for key, box in inputs.items()}
    if settings["moe.placement"] is not None:
        settings["parallel.expert_parallel_size"] = base.parallel.gpus_per_replica
    return settings


def _value(key: str, box: Any) -> Any:
    if key == "cluster.gpu":
        return box.value
    if key == "moe.placement":
        return None if box.value == _EVEN else box.value
    if key in {"workload.request_rate", "cluster.hbm_bandwidth_scale"}:
        return float(box.value)
    return int(box.value)


def _said(results: dict[str, RunResult], took_s: float) -> str:
    first = next(iter(results.values())).summary
    shares = [r.summary["extrapolated_fraction"] or 0.0 for r in results.values()]
    return (
        f"{first['model_id']} on {first['num_gpus']} x {first['gpu']},"
        f" {first['dataset']}, profile {first['profile']}:"
        f" {first['num_prompts']} requests; at most {100 * max(shares):.1f} % of the"
        " time lies outside profiled kernel timings."
        f" Simulated both policies in {took_s:.2f} s."
    )
