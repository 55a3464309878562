"""Engine profiles hold what the fit gives, and say what they have seen."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from calibration.cases import cases
from calibration.engine_profiles import (
    CONFIDENCES,
    EngineProfile,
    engine_profile,
    profile_names,
)
from calibration.kernels.experts import Inefficiency
from calibration.measured import fit_cases
from calibration.tables import DATA_DIR
from sim.build import build_machine
from sim.config_file import load_config
from sim.fit_profiles import fit_kernels, fit_v1_host, fit_v2_host
from sim.plan import LayerSpan, PrefillChunk, StepPlan


def fitted() -> EngineProfile:
    return fit_kernels(engine_profile("layered-prefill-v1"), fit_cases()["lp-micro"])


def test_kernel_constants_are_those_of_the_micro_benchmark() -> None:
    """Refitting from the measured numbers gives the shipped factors."""
    again = fitted()
    for name in ("layered-prefill-v1", "layered-prefill-v2"):
        shipped = engine_profile(name)
        assert shipped.moe.memory == pytest.approx(again.moe.memory, rel=2e-3)
        assert shipped.moe.compute == pytest.approx(again.moe.compute, rel=2e-3)
        assert shipped.prefill_attention_factor == again.prefill_attention_factor
        assert shipped.row_layer_ns == pytest.approx(again.row_layer_ns, rel=5e-3)
        assert shipped.host.prefill_ns == pytest.approx(again.host.prefill_ns, rel=2e-2)


@pytest.mark.long
def test_host_times_of_v1_are_a_fixed_point_of_the_token_trace() -> None:
    """Simulated under the shipped profile, the trace gives the shipped host times."""
    shipped = engine_profile("layered-prefill-v1")
    again = fit_v1_host(shipped, fit_cases()["lp-fig5"])
    assert again == shipped.host


@pytest.mark.long
def test_host_times_of_v2_are_a_fixed_point_of_the_latency_modes() -> None:
    first = engine_profile("layered-prefill-v1")
    shipped = engine_profile("layered-prefill-v2")
    again = fit_v2_host(shipped, first, fit_cases()["lp-readme-itl"])
    assert again == shipped.host


def test_a_full_layered_iteration_lasts_what_the_trace_shows() -> None:
    """Fig. 5: 33.6 ms with prefill in flight, 14 ms without; a few decodes more or
    less move them by about a third of a millisecond each."""
    machine = build_machine(
        load_config(None, (), {"calibration.profile": "layered-prefill-v1"})
    )
    group = PrefillChunk(0, 0, 8192)
    layered = StepPlan((LayerSpan(0, 3, (group,)), LayerSpan(3, 48)))
    decode = StepPlan((LayerSpan(0, 48),))
    assert machine.pricer.price(layered, 8, 8 * 8200).duration_ns == pytest.approx(
        33.6e6, rel=0.03
    )
    assert machine.pricer.price(decode, 7, 7 * 8200).duration_ns == pytest.approx(
        14.0e6, rel=0.05
    )


def test_every_profile_says_what_it_was_fitted_to() -> None:
    """Or why it was fitted to nothing, which is no entry in the list itself."""
    known = set(fit_cases())
    for name in profile_names():
        profile = engine_profile(name)
        seen = profile.fitted_to
        assert bool(seen) != bool(profile.note)
        assert not any(entry.startswith("nothing") for entry in seen)
        if name.startswith("layered-prefill"):
            assert set(seen) <= known


@pytest.mark.parametrize("name", profile_names())
def test_every_constant_has_a_confidence_and_a_source(name: str) -> None:
    """And nothing else has: each key of the file once, host times alone or together."""
    document = tomllib.loads((DATA_DIR / "profiles.toml").read_text())[name]
    words = {"description", "framework", "fitted_to", "note", "evidence", "host"}
    constants = set(document) - words | {f"host.{key}" for key in document["host"]}
    evidence = engine_profile(name).evidence
    believed = [entry.constant for entry in evidence]
    own = set(believed) - {"host"}
    assert len(own) + ("host" in believed) == len(believed)
    assert own <= constants
    assert all(c.startswith("host.") for c in constants - own)
    assert constants == own or "host" in believed
    for entry in evidence:
        assert entry.confidence in CONFIDENCES
        assert len(entry.source) > 10


def test_a_profile_without_factors_takes_the_tables_as_they_are() -> None:
    profile = engine_profile("trtllm-1.3")
    assert (profile.prefill_attention_factor, profile.row_layer_ns) == (1.0, 0.0)
    assert (profile.moe, profile.untuned_moe) == (Inefficiency(1.0, 1.0), ())


def test_calibration_and_validation_cases_do_not_overlap() -> None:
    """What judges the layered-prefill engines is no case they are fitted to, and
    is an end-to-end metric: fits see micro and iteration times."""
    judges = [
        (case.id, m.metric)
        for case in cases()
        for m in case.measurements
        if case.setup.profile.startswith("layered-prefill")
        and not case.is_calibration(m)
    ]
    assert len(judges) >= 20
    assert not {name for name, _ in judges} & set(fit_cases())
    assert {metric for _, metric in judges} <= {
        "rate_at_90_slo",
        "energy_per_token_j",
        *(f"{s}_{m}_ms" for s in ("mean", "median", "p99") for m in ("ttft", "e2el")),
        *(f"{s}_{m}_ms" for s in ("mean", "median") for m in ("itl", "tpot")),
        "p99_itl_ms",
    }


def test_padding_goes_to_the_next_captured_size_and_is_eager_beyond() -> None:
    profile = replace(engine_profile("vllm-0.24"), graph_rows=(1, 2, 4, 8))
    assert [profile.padded(rows) for rows in (1, 3, 8, 9)] == [
        (1, True),
        (4, True),
        (8, True),
        (9, False),
    ]
