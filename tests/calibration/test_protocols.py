"""Protocols become the workloads that their publications describe."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.cases import cases
from calibration.protocols import Burst, ClosedLoop, InferenceX, OpenLoop
from sim.build import build_workload_of
from sim.config_file import load_config
from workloads.workload import Workload


def _workload(settings: dict[str, object]) -> Workload:
    base = {
        "engine.scheduler": "chunked-prefill",
        "engine.max_num_batched_tokens": 8192,
    }
    return build_workload_of(load_config(None, (), base | settings))


@pytest.mark.parametrize("length", [1024, 8192, 1000])
def test_inferencex_draws_lengths_from_four_fifths_to_all_of_l(length: int) -> None:
    """10 C prompts, C clients; the ends of [0.8 L, L] are met within two tokens."""
    protocol = InferenceX(input_len=length, output_len=1024, max_concurrency=64)
    (settings,) = protocol.settings()
    workload = _workload(settings)
    prompts = np.array([r.prompt_tokens for r in workload.requests])
    outputs = np.array([r.output_tokens for r in workload.requests])
    assert len(workload.requests) == 640
    assert workload.max_concurrency == 64
    assert settings["engine.max_num_seqs"] == 64
    for lengths, longest in ((prompts, length), (outputs, 1024)):
        assert lengths.min() >= 0.8 * longest - 2
        assert lengths.max() <= longest + 2
        # uniform: mean 0.9 L, s.d. 0.2 L / sqrt(12); four standard errors of 640 draws
        assert abs(lengths.mean() - 0.9 * longest) < 4 * 0.0577 * longest / 640**0.5 + 1
        assert lengths.std() == pytest.approx(0.2 * longest / 12**0.5, rel=0.1)


@pytest.mark.parametrize(("batch", "requests"), [(8, 256), (128, 256), (512, 1024)])
def test_a_burst_waits_from_the_start_for_a_batch(batch: int, requests: int) -> None:
    """Lengths spread by a half either way, two batches of them or 256."""
    (settings,) = Burst(
        input_len=300, output_len=900, range_ratio=0.5, max_num_seqs=batch
    ).settings()
    workload = _workload(settings)
    assert len(workload.requests) == requests
    assert {r.arrival_ns for r in workload.requests} == {0}
    assert workload.max_concurrency is None
    assert settings["engine.max_num_seqs"] == batch
    outputs = [r.output_tokens for r in workload.requests]
    assert 450 <= min(outputs) < 500
    assert 1300 < max(outputs) <= 1350


def test_a_closed_loop_has_fixed_lengths() -> None:
    (settings,) = ClosedLoop(
        input_len=2048, output_len=128, max_concurrency=1, num_requests=4
    ).settings()
    workload = _workload(settings)
    assert {(r.prompt_tokens, r.output_tokens) for r in workload.requests} == {
        (2048, 128)
    }
    assert (len(workload.requests), workload.max_concurrency) == (4, 1)


def test_an_open_loop_is_one_run_per_rate_over_the_same_requests() -> None:
    slow, fast = (
        _workload(settings)
        for settings in OpenLoop(
            request_rates=(1.0, 2.0), dataset="arxiv", num_requests=50
        ).settings()
    )
    for a, b in zip(slow.requests, fast.requests, strict=True):
        assert a.prompt_tokens == b.prompt_tokens
        assert a.arrival_ns == pytest.approx(2 * b.arrival_ns, abs=100)


def test_near_constant_arrivals_are_near_constant() -> None:
    """Burstiness is 1 / CV^2: 100 gives gaps with a CV of 0.1."""
    case = next(case for case in cases() if case.id == "ld7-l8b-h100x2-8k200-r3.6")
    (settings,) = case.protocol.settings()
    gaps = np.diff([r.arrival_ns for r in _workload(settings).requests])
    assert gaps.mean() == pytest.approx(1e9 / 3.6, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(0.1, rel=0.2)


def test_only_open_loops_draw_arrivals() -> None:
    """So that only they are run under several seeds unless asked."""
    drawn = {type(c.protocol).__name__: c.protocol.random_arrivals for c in cases()}
    assert drawn == {
        "OpenLoop": True,
        "InferenceX": False,
        "Burst": False,
        "ClosedLoop": False,
    }
