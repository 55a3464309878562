"""A made-up comparison with plausible shapes; no number here is a result."""

from __future__ import annotations

import numpy as np
import pandas as pd

RATES = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8)
_KNEE = {
    "chunked-prefill": 1.45,
    "layered-prefill": 1.75,
    "orca": 1.6,
    "static": 1.1,
}
_P99_TBT_MS = {
    "chunked-prefill": 48.0,
    "layered-prefill": 36.0,
    "orca": 400.0,
    "static": 15.0,
}
_EXPERT_GB_REQUEST = {
    "chunked-prefill": 900.0,
    "layered-prefill": 500.0,
    "orca": 450.0,
    "static": 600.0,
}
_ENERGY_J_TOKEN = {
    "chunked-prefill": 0.047,
    "layered-prefill": 0.042,
    "orca": 0.040,
    "static": 0.060,
}
_STATISTICS = ("mean", "median", "std", "p90", "p95", "p99")
_PARTS = {"run": 0.62, "wait": 0.05, "hbm": 0.16, "flop": 0.12, "idle": 0.05}


def compare_frame(
    schedulers: tuple[str, ...] = ("chunked-prefill", "layered-prefill"),
    rates: tuple[float, ...] = RATES,
) -> pd.DataFrame:
    """A frame with every column `servescope compare` writes."""
    return pd.DataFrame([_row(name, rate) for rate in rates for name in schedulers])


def tradeoff_frame() -> pd.DataFrame:
    """A trade-off at 1.3 req/s: three chunks, two group counts, a policy without."""
    schedulers = ("chunked-prefill", "layered-prefill", "orca")
    rows = compare_frame(schedulers, (1.3,)).iloc[[0, 0, 0, 1, 1, 2]]
    return rows.reset_index(drop=True).assign(
        knob=[*["max_num_batched_tokens"] * 3, *["num_layer_groups"] * 2, None],
        knob_value=[512, 1024, 2048, 8, 16, None],
        mean_ttft_ms=[3000.0, 800.0, 450.0, 650.0, 1500.0, 140.0],
        p99_itl_ms=[50.0, 63.0, 86.0, 52.0, 37.0, 13.0],
        completed=[780, 780, 780, 780, 780, 450],
    )


def _row(scheduler: str, rate: float) -> dict[str, object]:
    """One run: a queue that grows once the rate passes the policy's knee."""
    load = rate / _KNEE[scheduler]
    completed = round(600 * rate)
    queue_s = 0.35 * load / (1.03 - load) if load < 1 else 12 + 200 * (load - 1)
    latency_ms = {
        "ttft": 1e3 * (0.6 + queue_s),
        "tpot": 0.7 * _P99_TBT_MS[scheduler],
        "itl": _P99_TBT_MS[scheduler] * (0.94 + 0.06 * load),
        "e2el": 1e3 * (3.5 + 2.2 * load + queue_s),
    }
    tokens = 9200 * completed
    energy_j = tokens * _ENERGY_J_TOKEN[scheduler] * (1 + 0.3 / rate)
    hbm_bytes = completed * _EXPERT_GB_REQUEST[scheduler] * 1e9 * (1.2 - 0.1 * rate)
    attainment = float(1 / (1 + np.exp(28 * (load - 1.02))))
    return {
        "scheduler": scheduler,
        "request_rate": rate,
        "num_prompts": completed,
        "completed": completed,
        "rejected": 0,
        "duration": 620.0,
        "request_throughput": completed / 620,
        "request_goodput": completed / 620 * attainment,
        "output_throughput": 200 * completed / 620,
        "total_token_throughput": tokens / 620,
        "slo_attainment": attainment,
        **{
            f"{statistic}_{name}_ms": value * (2.5 if _tail(statistic, name) else 1)
            for name, value in latency_ms.items()
            for statistic in _STATISTICS
        },
        "energy_j": energy_j,
        "energy_per_output_token_j": energy_j / (200 * completed),
        "energy_per_token_j": energy_j / tokens,
        "mean_power_w": energy_j / 620,
        "hbm_bytes": 1.3 * hbm_bytes,
        "expert_weight_bytes": hbm_bytes,
        "other_weight_bytes": 0.1 * hbm_bytes,
        "kv_bytes": 0.15 * hbm_bytes,
        "activation_bytes": 0.05 * hbm_bytes,
        **{f"energy_{part}_j": energy_j * share for part, share in _PARTS.items()},
        "preemptions": 0,
        "extrapolated_fraction": 0.01,
        "model": "Qwen/Qwen3-30B-A3B",
        "gpu": "h100_sxm",
        "num_gpus": 2,
        "dataset": "arxiv",
        "profile": "layered-prefill-v1",
        "slo_ttft_ms": 10000.0,
        "slo_itl_ms": 125.0,
    }


def _tail(statistic: str, name: str) -> bool:
    """Whether a statistic lies in a tail that this sample stretches."""
    return statistic.startswith("p") and name in {"ttft", "e2el"}
