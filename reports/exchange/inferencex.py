"""The aggregate row of InferenceX (formerly InferenceMAX), one JSON object a run.

Keys and units as its public result files have them: latencies in seconds without
their ``_ms``, interactivity in tokens/s for every TPOT, throughput per GPU.
"""

from __future__ import annotations

import json
from typing import Any, Final

from reports.html.study import Run

_STATISTICS: Final = ("mean", "median", "std", "p90", "p95", "p99")
_LATENCIES: Final = ("ttft", "tpot", "itl", "e2el")
_MS_PER_S: Final = 1e3


def inferencex_row(run: Run) -> str:
    """The row; ``conc`` is None for an open loop, which that benchmark never runs."""
    summary, config = run.summary, run.config
    gpus = summary["num_gpus"]
    row: dict[str, Any] = {
        "hw": str(summary["gpu"]).partition("_")[0],
        "tp": config.get("parallel.tensor_parallel_size"),
        "ep": config.get("parallel.expert_parallel_size"),
        "dp_attention": "false",
        "conc": summary["max_concurrency"],
        "model": summary["model_id"],
        "framework": summary["profile"],
        "precision": config.get("model.dtype"),
        "isl": _mean(summary["total_input_tokens"], summary["completed"]),
        "osl": _mean(summary["total_output_tokens"], summary["completed"]),
        "tput_per_gpu": _mean(summary["total_token_throughput"], gpus),
        "output_tput_per_gpu": _mean(summary["output_throughput"], gpus),
        "avg_power_w": summary.get("mean_power_w"),
        "joules_per_output_token": summary.get("energy_per_output_token_j"),
        "joules_per_total_token": summary.get("energy_per_token_j"),
        "simulated": True,
    }
    for latency in _LATENCIES:
        for statistic in _STATISTICS:
            value = summary.get(f"{statistic}_{latency}_ms")
            row[f"{statistic}_{latency}"] = None if value is None else value / _MS_PER_S
            if latency == "tpot":
                row[f"{statistic}_intvty"] = _MS_PER_S / value if value else None
    return json.dumps(row, indent=2, allow_nan=False) + "\n"


def _mean(total: float | None, count: float) -> float | None:
    return total / count if total is not None and count else None
