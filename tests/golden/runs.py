"""Golden runs and their fingerprints; run as a module, it writes them anew.

    python -m tests.golden.runs [FILE]

A fingerprint that differs means that predictions changed. If they should, write the
file and add a line "Predictions changed: ..." to CHANGELOG.md; the numbers beside the
hashes show by how much.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from sim.config_file import load_config
from sim.results import RunResult
from sim.runner import run_config

FINGERPRINTS = Path(__file__).with_name("fingerprints.json")
COMMAND = "python -m tests.golden.runs"

_DENSE = ("parallel.tensor_parallel_size=1", "cluster.gpus_per_node=1")
_PRESSED = (  # two small caches: preemptions, and prompts beyond the context
    "workload.dataset=random",
    "workload.random_input_len=6000",
    "workload.random_output_len=800",
    "workload.random_range_ratio=0.8",
    "engine.max_model_len=9000",
    "engine.kv_cache_tokens=12000",
    "parallel.replicas=2",
    "cluster.nodes=2",
)
GOLDEN: dict[str, tuple[str, ...]] = {
    "adaptive-layered-prefill": (
        "engine.scheduler=adaptive-layered-prefill",
        "engine.tbt_target_ms=40.0",
    ),
    "dynamic-chunked-prefill": (
        "engine.scheduler=dynamic-chunked-prefill",
        "engine.tbt_target_ms=40.0",
    ),
    "chunked-prefill, one prefill and two decode replicas": (
        "engine.scheduler=chunked-prefill",
        "engine.max_num_batched_tokens=8192",
        "parallel.prefill_replicas=1",
        "parallel.replicas=3",
        "cluster.nodes=2",
        "cluster.gpus_per_node=4",
    ),
    "layered-prefill, layer groups' KV to a decode replica": (
        "parallel.prefill_replicas=1",
        "parallel.replicas=2",
        "parallel.kv_transfer=layer-wise",
        "cluster.gpus_per_node=4",
    ),
    "layered-prefill, fair among clients": (
        "engine.queue=vtc",
        "workload.num_clients=3",
        "engine.max_num_seqs=2",
    ),
    "hybrid-prefill, sharegpt": (
        "engine.scheduler=hybrid-prefill",
        "workload.dataset=sharegpt",
        "workload.request_rate=6.0",
    ),
    "multiplexed-prefill": (
        "engine.scheduler=multiplexed-prefill",
        "engine.prefill_sm_share=0.6",
    ),
    "chunked-prefill, swapped to the host": (
        "engine.scheduler=chunked-prefill",
        "engine.preemption_mode=swap",
        *_PRESSED,
    ),
    "layered-prefill": (),
    "layered-prefill, paper rule, paper engine": (
        "engine.layer_group_rule=paper",
        "calibration.profile=layered-prefill-v1",
    ),
    "chunked-prefill": ("engine.scheduler=chunked-prefill",),
    "chunked-prefill, KV cache short": (
        "engine.scheduler=chunked-prefill",
        "parallel.router=least-outstanding-requests",
        *_PRESSED,
    ),
    "layered-prefill, KV cache short": _PRESSED,
    "orca, Llama-3.1-8B on A100": (
        "engine.scheduler=orca",
        "model.name=meta-llama/Llama-3.1-8B",
        "cluster.gpu=a100_sxm",
        "engine.max_num_batched_tokens=16384",
        *_DENSE,
    ),
    "static, Qwen3-8B, eight clients": (
        "engine.scheduler=static",
        "model.name=Qwen/Qwen3-8B",
        "workload.dataset=sharegpt",
        "workload.max_concurrency=8",
        *_DENSE,
    ),
    "chunked-prefill, gpt-oss-120b with experts spread": (
        "engine.scheduler=chunked-prefill",
        "model.name=openai/gpt-oss-120b",
        "parallel.expert_parallel_size=2",
        "workload.burstiness=0.5",
    ),
    "layered-prefill, fp8 on H200, uniform routing": (
        "model.dtype=fp8",
        "cluster.gpu=h200_sxm",
        "moe.routing=uniform",
        "seed=7",
    ),
    "chunked-prefill, SGLang on B200": (
        "engine.scheduler=chunked-prefill",
        "calibration.profile=sglang-0.5",
        "cluster.gpu=b200_sxm",
    ),
}
"""Overrides of the defaults, by the name of the run."""
_COMMON = ("workload.num_requests=24", "workload.request_rate=2.5")

_TIMES = (
    *("arrival_ns", "first_scheduled_ns", "first_token_ns", "finish_ns"),
    *("replica", "prompt_tokens", "output_tokens", "preemptions"),
)
_STEPS = (
    *("replica", "start_ns", "end_ns", "decode_tokens", "prefill_layer_tokens"),
    *("running", "waiting", "used_blocks"),
)
_READABLE = (
    *("completed", "rejected", "preemptions", "iterations", "duration"),
    *("mean_ttft_ms", "mean_itl_ms", "p99_itl_ms", "energy_j", "hbm_bytes"),
)


def golden_run(name: str) -> RunResult:
    """Run one of them."""
    return run_config(load_config(None, (*_COMMON, *GOLDEN[name])))


def fingerprint(result: RunResult) -> dict[str, Any]:
    """SHA-256 of the times and counts of a run, and numbers to read beside it.

    Hashed are integers of requests and iterations, small enough that the last bit of
    another machine's logarithms is rounded away; the rest is rounded to 6 digits.
    """
    digest = hashlib.sha256()
    for frame, columns in ((result.requests, _TIMES), (result.iterations, _STEPS)):
        for column in columns:
            digest.update(_integers(frame[column]))
    readable = {key: _rounded(result.summary[key]) for key in _READABLE}
    return {"sha256": digest.hexdigest(), **readable}


def _integers(values: Iterable[Any]) -> bytes:
    """One a line; an empty field (rejected requests have no times) is a dash."""
    lines = ["-" if pd.isna(value) else str(value) for value in values]
    return "\n".join([*lines, ""]).encode()


def _rounded(value: float) -> float:
    return value if isinstance(value, int) and value < 10**6 else float(f"{value:.6g}")


def main(file: Path = FINGERPRINTS) -> None:
    """Write the fingerprints of all."""
    prints = {name: fingerprint(golden_run(name)) for name in GOLDEN}
    file.write_text(json.dumps(prints, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
