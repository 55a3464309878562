"""The time series under vLLM's metric names, as OpenMetrics text with timestamps.

For dashboards made for a real server: Prometheus reads it back with
``promtool tsdb create-blocks-from openmetrics``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from reports.html.study import Run, needed_table

# Column of timeseries.csv.gz, metric and help; power has no name in vLLM.
_GAUGES: Final = (
    ("running", "vllm:num_requests_running", "Requests in the running batch."),
    ("waiting", "vllm:num_requests_waiting", "Requests waiting to be scheduled."),
    ("kv_cache_usage_perc", "vllm:kv_cache_usage_perc", "KV cache in use, 0 to 1."),
    ("power_w", "servescope:power_watts", "Board power of all GPUs."),
)


def openmetrics_text(run: Run) -> str:
    """A gauge per column, a sample per second of simulated time.

    Raises:
        ConfigError: If the run has no readable timeseries.csv.gz.
    """
    return "".join(f"{line}\n" for line in _lines(run))


def _lines(run: Run) -> Iterator[str]:
    frame = needed_table(run, "timeseries.csv.gz")
    labels = f'model_name="{_escaped(str(run.summary["model_id"]))}",engine="0"'
    for column, name, text in _GAUGES:
        yield f"# TYPE {name} gauge"
        yield f"# HELP {name} {text}"
        for time_s, value in zip(frame["time_s"], frame[column], strict=True):
            yield f"{name}{{{labels}}} {value} {time_s}"
    yield "# EOF"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
