"""Fit what vLLM adds to the kernels of an iteration, per layer and per request.

A measured case is a token time at a steady batch. Its kernels are simulated under the
same load with no host time at all; the remainder is fitted, over all rows of a case,
by non-negative least squares of relative errors on [layers, decoding requests] and,
where requests were sampled as the model's generation settings say, on the logits that
truncated sampling sorts, by GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from calibration.engine_profiles import EngineProfile, engine_profile
from calibration.measured import fit_cases
from calibration.model_shape import ModelShape
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
    """The case's profile with its times per layer, request and logit fitted again."""
    from scipy.optimize import nnls  # noqa: PLC0415  (slow to load)

    case = fit_cases()[case_name]
    profile = engine_profile(case["profile"])
    rows = [dict(zip(case["columns"], row, strict=True)) for row in case["rows"]]
    kernels = [_kernel_ms(profile, case, row) for row in rows]
    measured = np.array([row["measured_ms"] for row in rows])
    rest = measured - np.array([milliseconds for milliseconds, _ in kernels])
    columns = np.array(
        [
            [
                shape.num_layers,
                row["batch"],
                *_sorted_logits(profile, shape, row["gpu"], row["batch"]),
            ]
            for (_, shape), row in zip(kernels, rows, strict=True)
        ]
    )
    found = nnls(columns / measured[:, None], rest / measured)[0]
    host = HostTimes(
        decode_ns=0,
        prefill_ns=0,
        mixed_ns=0,
        layered_ns=0,
        per_layer_ns=round(found[0] * 1e4) * 100,
        per_sequence_ns=round(found[1] * 1e4) * 100,
    )
    sort_ps = [round(value * 1e9) for value in found[2:]]
    return replace(
        profile,
        host=host,
        sort_logit_ps=dict(zip(profile.sort_logit_ps, sort_ps, strict=True)),
    )


def _sorted_logits(
    profile: EngineProfile, shape: ModelShape, gpu: str, batch: int
) -> list[int]:
    """Logits sorted in an iteration, in the place of the GPU's constant."""
    own = profile.sorts_as(gpu)
    logits = batch * shape.vocab_size if shape.truncated_sampling else 0
    return [logits if name == own else 0 for name in profile.sort_logit_ps]


def _kernel_ms(
    profile: EngineProfile, case: Mapping[str, Any], row: Mapping[str, Any]
) -> tuple[float, ModelShape]:
    """The case's metric of the load without host time, and the model."""
    config = _closed_loop(row, case["prompt_tokens"])
    bare = HostTimes(decode_ns=0, prefill_ns=0, mixed_ns=0, layered_ns=0)
    machine = build_machine(config, replace(profile, host=bare, sort_logit_ps={}))
    workload = build_workload_of(config)
    run = build_cluster(config, machine, workload).run(workload.requests)
    sample = latency_sample(run.records, [log.decode_end_ns for log in run.logs])
    milliseconds = {
        "median_itl": lambda: sample.itl_ms.percentiles([50])[0],
        "mean_tpot": lambda: float(sample.tpot_ms.mean()),
    }[case["metric"]]()
    return milliseconds, machine.model


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
