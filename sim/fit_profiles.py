"""Fit the layered-prefill engine profiles to its micro-benchmark and iteration times.

No end-to-end latency enters. Steps, each from the numbers named in
``calibration/data/measured.toml``:

1. ``lp-micro`` MoE times -> memory and compute factors of the MoE roofline.
2. ``lp-micro`` attention times -> one factor (geometric mean of two ratios).
3. ``lp-micro`` totals -> time per row and layer of kernels without a table, and host
   time of an iteration without decodes.
4. Iteration times (``lp-fig5`` for v1, ``lp-readme-itl`` for v2) -> host time of
   decode-only, mixed and layered iterations: measured minus kernels.

The decode batch behind an iteration time is not published. It is the mean batch a
token shares in a simulated run of the same load, which depends on the host times:
the two are iterated to a fixed point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibration.engine_profiles import EngineProfile, engine_profile
from calibration.kernels.experts import Inefficiency
from calibration.measured import fit_cases
from sim.build import Machine, build_machine, build_workload_of
from sim.build_cluster import build_cluster
from sim.config_file import load_config
from sim.micro_benchmark import PROMPT_TOKENS, predict
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.step_cost import HostTimes
from sim.units import NS_PER_MS

CONTEXT_TOKENS = 8100
"""Mean context of a decoding arXiv request: 8.0 k of prompt and half its output."""
PREFIX_TOKENS = 5300
"""Mean prefix of an arXiv chunk: half the token-weighted mean prompt length."""
GROUPS = 16
_FIXED_POINT_ROUNDS = 3
CHUNK_TOKENS = 512


def fit_profiles() -> dict[str, EngineProfile]:
    """Fit ``layered-prefill-v1`` and ``layered-prefill-v2`` from scratch."""
    cases = fit_cases()
    kernels = fit_kernels(engine_profile("layered-prefill-v1"), cases["lp-micro"])
    first = kernels
    for _ in range(_FIXED_POINT_ROUNDS):
        first = replace(first, host=fit_v1_host(first, cases["lp-fig5"]))
    second = replace(first, name="layered-prefill-v2")
    for _ in range(_FIXED_POINT_ROUNDS):
        host = fit_v2_host(second, first, cases["lp-readme-itl"])
        second = replace(second, host=host)
    return {first.name: first, second.name: second}


def fit_v1_host(profile: EngineProfile, case: Mapping[str, Any]) -> HostTimes:
    """One round for the paper's engine: batches under ``profile``, then host times."""
    machine = _machine(profile)
    layered = simulated_batches(profile, "layered-prefill", case)
    chunked = simulated_batches(profile, "chunked-prefill", case)
    return HostTimes(
        decode_ns=_overhead_ns(
            machine, case["decode_ms"], _decode_plan(machine), (layered.decode_only,)
        ),
        prefill_ns=profile.host.prefill_ns,
        mixed_ns=_overhead_ns(
            machine,
            case["chunked_ms"],
            _chunk_plan(machine, chunked.with_prefill),
            (chunked.with_prefill,),
        ),
        layered_ns=_overhead_ns(
            machine, case["layered_ms"], _group_plan(machine), (layered.with_prefill,)
        ),
    )


def fit_v2_host(
    profile: EngineProfile, first: EngineProfile, case: Mapping[str, Any]
) -> HostTimes:
    """One round for the README's engine; its decode-only mode has a batch of 1 or 2.

    Mixed iterations of this engine are not published: v1's host time, in the
    proportion of the layered ones.
    """
    machine = _machine(profile)
    layered = simulated_batches(profile, "layered-prefill", case)
    layered_ns = _overhead_ns(
        machine, case["layered_ms"], _group_plan(machine), (layered.with_prefill,)
    )
    return HostTimes(
        decode_ns=_overhead_ns(
            machine, case["decode_ms"], _decode_plan(machine), (1, 2)
        ),
        prefill_ns=profile.host.prefill_ns,
        mixed_ns=round(first.host.mixed_ns * layered_ns / first.host.layered_ns),
        layered_ns=layered_ns,
    )


@dataclass(frozen=True, slots=True)
class Batches:
    """Decoding requests a token shares its iteration with, itself included."""

    decode_only: int
    with_prefill: int


def simulated_batches(
    profile: EngineProfile, scheduler: str, case: Mapping[str, Any]
) -> Batches:
    """Token-weighted mean decode batch by kind of iteration, at the case's load."""
    config = load_config(
        None,
        (),
        {
            "engine.scheduler": scheduler,
            "workload.request_rate": case["request_rate"],
            "workload.num_requests": case["num_requests"],
        },
    )
    workload = build_workload_of(config)
    cluster = build_cluster(config, build_machine(config, profile), workload)
    (log,) = cluster.run(workload.requests).logs
    batch = np.asarray(log.decode_tokens, dtype=np.float64)
    prefills = np.asarray(log.prefill_layer_tokens) > 0
    means = [
        float((batch[kind] ** 2).sum() / batch[kind].sum())
        for kind in (~prefills, prefills)
    ]
    return Batches(*map(round, means))


def fit_kernels(profile: EngineProfile, case: Mapping[str, Any]) -> EngineProfile:
    """MoE factors, attention factor, row time and prefill-only host time."""
    neutral = replace(
        profile,
        host=HostTimes(decode_ns=0, prefill_ns=0, mixed_ns=0, layered_ns=0),
        moe=Inefficiency(),
        prefill_attention_factor=1.0,
        row_layer_ns=0.0,
    )
    fitted = replace(neutral, moe=_fit_moe(neutral, case))
    fitted = replace(
        fitted, prefill_attention_factor=round(_fit_attention(fitted, case), 3)
    )
    return _fit_rest(fitted, case)


def _fit_moe(profile: EngineProfile, case: Mapping[str, Any]) -> Inefficiency:
    from scipy.optimize import least_squares  # noqa: PLC0415  (slow to load)

    target = np.array(case["moe_ms"])

    def relative_errors(factors: Sequence[float]) -> Any:
        trial = replace(profile, moe=Inefficiency(*(float(f) for f in factors)))
        predicted = _predictions(trial, case)
        return np.array([p.moe_ms for p in predicted]) / target - 1.0

    # Times are whole nanoseconds, so the step of a derivative must not be tiny.
    fit = least_squares(relative_errors, [1.5, 1.2], diff_step=1e-2)
    return Inefficiency(round(float(fit.x[0]), 3), round(float(fit.x[1]), 3))


def _fit_attention(profile: EngineProfile, case: Mapping[str, Any]) -> float:
    machine = _machine(profile)
    ratios = [
        milliseconds / predict(machine, int(chunk)).attention_ms
        for chunk, milliseconds in case["attention_ms"].items()
    ]
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))


def _fit_rest(profile: EngineProfile, case: Mapping[str, Any]) -> EngineProfile:
    """Relative least squares of totals on [rows * layers, iterations]."""
    total = np.array(case["total_ms"])
    predicted = np.array([p.total_ms for p in _predictions(profile, case)])
    layers = _machine(profile).model.num_layers
    columns = np.array(
        [
            [PROMPT_TOKENS * layers / NS_PER_MS, PROMPT_TOKENS / chunk]
            for chunk in case["chunk_tokens"]
        ]
    )
    weights = 1.0 / total
    solution, *_ = np.linalg.lstsq(
        columns * weights[:, None], (total - predicted) * weights, rcond=None
    )
    prefill_ns = round(float(solution[1]) * NS_PER_MS)
    return replace(
        profile,
        row_layer_ns=round(float(solution[0]), 1),
        host=replace(profile.host, prefill_ns=prefill_ns),
    )


def _predictions(profile: EngineProfile, case: Mapping[str, Any]) -> list[Any]:
    machine = _machine(profile)
    experts = machine.model.num_experts
    return [
        predict(machine, chunk, touched=coverage * experts)
        for chunk, coverage in zip(
            case["chunk_tokens"], case["expert_coverage"], strict=True
        )
    ]


def _decode_plan(machine: Machine) -> StepPlan:
    return StepPlan((LayerSpan(0, machine.model.num_layers),))


def _group_plan(machine: Machine) -> StepPlan:
    """The first group of a full batch of one prompt."""
    layers = machine.model.num_layers
    last = layers // GROUPS
    batch = (PrefillChunk(0, 0, PROMPT_TOKENS),)
    return StepPlan((LayerSpan(0, last, batch), LayerSpan(last, layers)))


def _chunk_plan(machine: Machine, decoding: int) -> StepPlan:
    """A chunk at the mean prefix, sharing the budget with the decodes."""
    chunk = PrefillChunk(0, PREFIX_TOKENS, CHUNK_TOKENS - decoding)
    return StepPlan((LayerSpan(0, machine.model.num_layers, (chunk,)),))


def _overhead_ns(
    machine: Machine, measured_ms: float, plan: StepPlan, batches: tuple[int, ...]
) -> int:
    """Measured iteration time minus kernels, averaged over decode batches."""
    kernels = [
        machine.pricer.kernel_ns(plan, batch, batch * CONTEXT_TOKENS)
        for batch in batches
    ]
    overhead = measured_ms * NS_PER_MS - sum(kernels) / len(kernels)
    return max(round(overhead / 1e4) * 10_000, 0)


def _machine(profile: EngineProfile) -> Machine:
    return build_machine(load_config(None), profile)
