"""Runs in the formats of other tools; each file writes one format.

A new format is one file with a function from a run to text, and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from reports.exchange.inferencex import inferencex_row
from reports.exchange.openmetrics import openmetrics_text
from reports.exchange.vllm_bench import vllm_bench_result
from reports.html.study import Run

FORMATS: Final[Mapping[str, Callable[[Run], str]]] = {
    "vllm-bench": vllm_bench_result,
    "inferencex": inferencex_row,
    "openmetrics": openmetrics_text,
}
"""By name, the text of a run."""
