"""Fit what vLLM adds to the kernels of an iteration, per layer and per request.

A measured case is a token time at a steady batch. Its kernels are simulated under the
same load with no host time at all; the remainder is fitted, over all rows of a case,
by non-negative least squares of relative errors on [layers, decoding requests].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from calibration.engine_profiles import EngineProfile, engine_profile
from calibration.measured import fit_cases
from sim.build import build_machine, build_workload_of
from sim.build_cluster import build_cluster
from sim.config import Config
from sim.config_file import load_config
from sim.metrics import latency_sample
from sim.step_cost import HostTimes

CASES: Final = ("me-itl", "ix-tpot")
_LONGEST_OUTPUT: Final = 2500
_SPREAD: Final = 0.5


def fit_host(case_name: str) -> EngineProfile:
    """The case's profile with its times per layer and per request fitted again."""
    from scipy.optimize import nnls  # noqa: PLC0415  (slow to load)

    case = fit_cases()[case_name]
    profile = engine_profile(case["profile"])
    rows = [dict(zip(case["columns"], row, strict=True)) for row in case["rows"]]
    kernels = [_kernel_ms(profile, case, row) for row in rows]
    measured = np.array([row["measured_ms"] for row in rows])
    rest = measured - np.array([milliseconds for milliseconds, _ in kernels])
    columns = np.array(
        [[layers, row["batch"]] for (_, layers), row in zip(kernels, rows, strict=True)]
    )
    per_layer_ms, per_sequence_ms = nnls(columns / measured[:, None], rest / measured)[
        0
    ]
    host = HostTimes(
        decode_ns=0,
        prefill_ns=0,
        mixed_ns=0,
        layered_ns=0,
        per_layer_ns=round(per_layer_ms * 1e4) * 100,
        per_sequence_ns=round(per_sequence_ms * 1e4) * 100,
    )
    return replace(profile, host=host)


def _kernel_ms(
    profile: EngineProfile, case: Mapping[str, Any], row: Mapping[str, Any]
) -> tuple[float, int]:
    """The case's metric of the load without host time, and the model's layers."""
    config = _closed_loop(row, case["prompt_tokens"])
    bare = HostTimes(decode_ns=0, prefill_ns=0, mixed_ns=0, layered_ns=0)
    machine = build_machine(config, replace(profile, host=bare))
    workload = build_workload_of(config)
    run = build_cluster(config, machine, workload).run(workload.requests)
    sample = latency_sample(run.records, [log.decode_end_ns for log in run.logs])
    milliseconds = {
        "median_itl": lambda: sample.itl_ms.percentiles([50])[0],
        "mean_tpot": lambda: float(sample.tpot_ms.mean()),
    }[case["metric"]]()
    return milliseconds, machine.model.num_layers


def _closed_loop(row: Mapping[str, Any], prompt_tokens: int) -> Config:
    """As many clients as the batch, long enough for a few turns of it."""
    batch = row["batch"]
    return load_config(
        None,
        (),
        {
            "model.name": row["model"],
            "cluster.gpu": row["gpu"],
            "cluster.gpus_per_node": row["tp"],
            "parallel.tensor_parallel_size": row["tp"],
            "parallel.expert_parallel_size": row["ep"],
            "engine.scheduler": "chunked-prefill",
            "engine.max_num_batched_tokens": 8192,
            "engine.max_num_seqs": batch,
            "engine.max_model_len": 8192,
            "workload.dataset": "random",
            "workload.max_concurrency": batch,
            "workload.num_requests": min(max(3 * batch, 64), 1500),
            "workload.random_input_len": prompt_tokens,
            "workload.random_output_len": min(row["output_tokens"], _LONGEST_OUTPUT),
            "workload.random_range_ratio": _SPREAD,
        },
    )
