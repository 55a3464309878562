"""Times per layer and per request: what the fit gives, and what they do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calibration.engine_profiles import engine_profile
from sim.build import build_machine
from sim.config_file import load_config
from sim.fit_host import CASES, fit_host
from sim.plan import LayerSpan, StepPlan
from sim.step_cost import HostTimes


@pytest.mark.parametrize(
    "case", [CASES[1], pytest.param(CASES[0], marks=pytest.mark.long)]
)
def test_the_shipped_times_are_those_of_the_fit(case: str) -> None:
    fitted = fit_host(case)
    profile = engine_profile(fitted.name)
    shipped = profile.host
    assert profile.sort_logit_ps == pytest.approx(fitted.sort_logit_ps, rel=0.02)
    assert shipped.per_layer_ns == pytest.approx(fitted.host.per_layer_ns, abs=500)
    assert shipped.per_sequence_ns == pytest.approx(
        fitted.host.per_sequence_ns, rel=0.02
    )


def test_they_add_to_every_iteration_and_the_gpus_keep_running() -> None:
    """48 layers x 1000 ns + 10 requests x 7000 ns, charged at running power."""
    config = load_config(None)
    profile = engine_profile("vllm-0.24")
    host = HostTimes(
        decode_ns=5, prefill_ns=0, mixed_ns=0, layered_ns=0, per_layer_ns=1000
    )
    plan = StepPlan((LayerSpan(0, 48),))
    bare, more = (
        build_machine(
            config, replace(profile, host=replace(host, per_sequence_ns=n))
        ).pricer.price(plan, 10, 10_000)
        for n in (0, 7000)
    )
    kernels = build_machine(config, profile).pricer.kernel_ns(plan, 10, 10_000)
    assert bare.duration_ns == kernels + 5 + 48 * 1000
    assert more.duration_ns == bare.duration_ns + 10 * 7000
    assert more.wait_ns == bare.wait_ns


def test_sorting_is_time_per_request_of_models_that_truncate() -> None:
    """Llama sorts 128,256 logits at 127 ps on an H100 and at 270 ps on a B200."""
    for gpu, sorting_ns in (("h100_sxm", 16_289), ("a100_sxm", 16_289)):
        assert _per_sequence_ns("meta-llama/Llama-3.1-8B", gpu) == 23_500 + sorting_ns
    assert _per_sequence_ns("meta-llama/Llama-3.1-8B", "b200_sxm") == 23_500 + 34_629
    assert _per_sequence_ns("openai/gpt-oss-20b", "b200_sxm") == 23_500
    greedy = {"calibration.profile": "vllm-0.18"}
    assert _per_sequence_ns("Qwen/Qwen3-8B", "h100_sxm", greedy) == 31_300


def _per_sequence_ns(model: str, gpu: str, values: dict[str, str] | None = None) -> int:
    named = {"model.name": model, "cluster.gpu": gpu}
    profile = values or {"calibration.profile": "vllm-0.11"}
    machine = build_machine(load_config(None, (), {**named, **profile}))
    return machine.profile.host.per_sequence_ns
