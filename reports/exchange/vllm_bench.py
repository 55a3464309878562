"""The file that ``vllm bench serve --save-result --save-detailed`` writes."""

from __future__ import annotations

import json
from typing import Any, Final

from reports.html.study import Run, needed_table

# Wall time means nothing to a simulation: the start of time, in the tool's format.
_DATE: Final = "19700101-000000"
_NS_PER_S: Final = 1e9
_MS_PER_S: Final = 1e3


def vllm_bench_result(run: Run) -> str:
    """All of ``result.json``, and the tool's keys of single requests.

    Per request, in the order they were sent: ``input_lens``, ``output_lens``,
    ``ttfts`` (s), ``latencies`` (s), ``start_times`` (s) and ``errors`` (empty, or why
    it was rejected). Single gaps between tokens (``itls``) are not kept by a run.

    Raises:
        ConfigError: If the run has no readable requests.csv.gz.
    """
    requests = needed_table(run, "requests.csv.gz").fillna({"rejected": ""})
    model = run.summary["model_id"]
    document: dict[str, Any] = {
        "date": _DATE,
        "endpoint_type": "simulated",
        "backend": "servescope",
        **run.summary,
        "tokenizer_id": model,
        "input_lens": requests["prompt_tokens"].to_list(),
        "output_lens": requests["output_tokens"].to_list(),
        "ttfts": (requests["ttft_ms"].fillna(0.0) / _MS_PER_S).to_list(),
        "latencies": (requests["e2el_ms"].fillna(0.0) / _MS_PER_S).to_list(),
        "start_times": (requests["arrival_ns"] / _NS_PER_S).to_list(),
        "errors": requests["rejected"].to_list(),
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
