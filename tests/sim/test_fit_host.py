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
    shipped = engine_profile(fitted.name).host
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
