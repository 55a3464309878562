"""The registry of measured cases: well-formed, cited, honest about what was seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calibration.case import METRICS, Case, Measurement
from calibration.cases import cases, not_simulatable, request_logs, select_cases
from calibration.engine_profiles import profile_names
from calibration.hardware import gpu_names
from calibration.measured import fit_cases
from calibration.models import model, model_names
from sim.errors import ConfigError


def _case(name: str) -> Case:
    return next(case for case in cases() if case.id == name)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_every_case_is_cited_and_names_what_the_catalogues_hold(case: Case) -> None:
    setup = case.setup
    assert case.source
    assert setup.engine
    assert model(setup.model).name in model_names()
    assert setup.gpu in gpu_names()
    assert setup.shipped_profile in profile_names()
    assert setup.num_gpus == setup.tp * setup.replicas
    assert setup.ep in {1, setup.tp}
    assert case.measurements
    for measurement in case.measurements:
        assert measurement.value > 0
        assert measurement.unit == METRICS[measurement.metric].unit
        assert set(measurement.seen_by) <= {*profile_names(), *gpu_names()}


def test_ids_are_unique_over_all_that_is_registered() -> None:
    ids = [case.id for case in cases()] + [case.id for case in not_simulatable()]
    assert len(ids) == len(set(ids))


def test_what_is_left_out_says_why() -> None:
    assert all(case.reason and case.source for case in not_simulatable())


def test_an_unshipped_profile_falls_back() -> None:
    setup = _case("ix-gptoss-h100-tp2-1k1k-c4").setup
    assert replace(setup, profile="vllm-9.9").shipped_profile == "vllm-0.24"


@pytest.mark.parametrize("name", ["me-itl", "ix-tpot"])
def test_what_a_profile_is_fitted_to_is_calibration_for_it(name: str) -> None:
    """Every row of the fit that the registry also holds, found by its number."""
    fit = fit_cases()[name]
    found = 0
    for row in fit["rows"]:
        fitted = dict(zip(fit["columns"], row, strict=True))
        for case in cases():
            setup = case.setup
            same = (setup.model, setup.gpu, setup.tp, setup.profile) == (
                fitted["model"],
                fitted["gpu"],
                fitted["tp"],
                fit["profile"],
            )
            for m in case.measurements if same else ():
                close = abs(m.value / fitted["measured_ms"] - 1) < 1e-3
                if m.metric in {"median_itl_ms", "mean_tpot_ms"} and close:
                    assert case.is_calibration(m), case.id
                    found += 1
    assert found == len(fit["rows"])


def test_power_the_gpu_constants_were_fitted_to_is_calibration() -> None:
    case = _case("me-l405b-h100-tp8-b8")
    kinds = {m.metric: case.is_calibration(m) for m in case.measurements}
    assert kinds == {
        "median_itl_ms": False,
        "output_throughput": False,
        "power_per_gpu_w": True,
        "energy_per_output_token_j": True,
    }


def test_a_case_that_a_profile_lists_is_calibration_without_the_registry() -> None:
    """layered-prefill-v1 lists lp-fig5 among what it was fitted to."""
    case = replace(_case("lp-fig3a-chunked"), id="lp-fig5")
    assert case.is_calibration(Measurement("mean_itl_ms", 1.0, "ms", ()))


def test_ttft_of_an_overloaded_engine_is_a_group_of_its_own() -> None:
    assert _case("ld0-l70b-a100tp2-r1.34").group("mean_ttft_ms") == "TTFT overloaded"
    assert _case("ld0-l70b-a100tp2-r0.5").group("mean_ttft_ms") == "TTFT"
    assert _case("ld0-l70b-a100tp2-r1.34").group("mean_tpot_ms") == "TPOT/ITL"


def test_selection_is_by_part_or_shell_pattern() -> None:
    assert {case.id for case in select_cases("tt340")} == {
        "tt340-q30b-a100-2048-128-c1",
        "tt340-q30b-a100-8192-128-c1",
    }
    assert [case.id for case in select_cases("*gptoss-h100*-c16")] == [
        "ix-gptoss-h100-tp8-1k1k-c16"
    ]
    assert select_cases(None) == cases()
    with pytest.raises(ConfigError, match="--only = nothing: no such case"):
        select_cases("nothing")


def test_known_logs_name_catalogue_models() -> None:
    assert {log.setup.model for log in request_logs().values()} <= set(model_names())
