"""Energy of a whole schedule, worked out by hand, in every file it is reported in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from sim.config_file import load_config
from sim.energy import PowerModel
from sim.plan import StepPlan
from sim.results import RunResult
from sim.runner import prepare, run_prepared
from sim.step import StepCost
from tests.sim.pricing import requests, step_cost
from workloads.workload import Workload

MS = 1_000_000
# Two boards: 300 W while kernels run, 200 W waiting, 100 W idle, never at the cap.
BOARDS = PowerModel(
    num_gpus=2,
    run_w=300.0,
    gap_w=200.0,
    idle_w=100.0,
    cap_w=700.0,
    hbm_pj_per_byte=50.0,
    pj_per_flop=1.0,
)


@dataclass(frozen=True)
class HandPricer:
    """1 ms + 0.1 per decode + 0.01 per prompt token and layer, 0.5 ms of it waiting.

    1 GB of weights and 1 MB per context token; 1 GFLOP per token and layer.
    """

    layers: int

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        work = sum(s.layers * c.tokens for s in plan.spans for c in s.prefill)
        duration_ns = MS + MS // 10 * decoding + MS // 100 * work
        kv_bytes = 10**6 * context_tokens
        flops = 10**9 * (work + self.layers * decoding)
        split = BOARDS.split(
            duration_ns=duration_ns,
            wait_ns=MS // 2,
            hbm_bytes=10**9 + kv_bytes,
            flops=flops,
        )
        return step_cost(
            duration_ns,
            wait_ns=MS // 2,
            other_weight_bytes=10**9,
            kv_bytes=kv_bytes,
            flops=flops,
            energy_run_j=split.run_j,
            energy_wait_j=split.wait_j,
            energy_hbm_j=split.hbm_j,
            energy_flop_j=split.flop_j,
        )


def run(*overrides: str) -> RunResult:
    """Three requests on a model of 4 layers.

    In ms: 0 prefills in [0, 1.4], decodes while 1 prefills in [1.4, 3.3] and alone in
    [3.3, 4.4]; 2 comes at 100 and prefills in [100, 101.4].
    """
    prepared = prepare(load_config(None, ("engine.scheduler=orca", *overrides)))
    model = replace(prepared.machine.model, num_layers=4)
    machine = replace(
        prepared.machine,
        model=model,
        deployment=replace(prepared.machine.deployment, model=model),
        pricer=HandPricer(layers=4),  # type: ignore[arg-type]
        power=BOARDS,
        profile=replace(prepared.machine.profile, frontend_ns=0),
    )
    rows = ((0, 10, 3), (1 * MS, 20, 1), (100 * MS, 10, 1))
    workload = Workload(name="by hand", requests=requests(*rows))
    return run_prepared(replace(prepared, machine=machine, workload=workload))


def test_schedule_by_hand() -> None:
    """Of 101.4 ms 5.8 are busy, 2 of those waiting.

    Running 2 x 300 W x 3.8 ms; waiting 2 x 200 W x 2 ms; idle 2 x 100 W x 95.6 ms;
    4 GB of weights and contexts of 11 and 12 tokens, 4.023 GB at 50 pJ; 168 GFLOP
    (40 + 84 + 4 + 40 tokens and layers) at 1 pJ.
    """
    result = run()
    assert result.iterations["start_ns"].tolist() == [0, 1.4 * MS, 3.3 * MS, 100 * MS]
    assert result.iterations["end_ns"].tolist() == [
        1.4 * MS,
        3.3 * MS,
        4.4 * MS,
        101.4 * MS,
    ]
    summary = result.summary
    parts = {
        "energy_run_j": 2.28,
        "energy_wait_j": 0.8,
        "energy_hbm_j": 0.20115,
        "energy_flop_j": 0.168,
        "energy_idle_j": 19.12,
    }
    assert {name: summary[name] for name in parts} == pytest.approx(parts)
    assert summary["energy_j"] == pytest.approx(22.56915)
    assert summary["energy_per_output_token_j"] == pytest.approx(22.56915 / 5)
    assert summary["energy_per_token_j"] == pytest.approx(22.56915 / 45)
    assert summary["mean_power_w"] == pytest.approx(22.56915 / 0.1014)
    assert summary["hbm_bytes"] == 4_023_000_000


def test_iterations_and_power_over_time_by_hand() -> None:
    """Iterations: 600 W, less 0.1 J of waiting, plus bytes and FLOPs of each."""
    result = run()
    expected = [
        0.6 * 0.9 + 0.2 + 0.05 + 0.04,
        0.6 * 1.4 + 0.2 + 0.05055 + 0.084,
        0.6 * 0.6 + 0.2 + 0.0506 + 0.004,
        0.6 * 0.9 + 0.2 + 0.05 + 0.04,
    ]
    assert result.iterations["energy_j"].tolist() == pytest.approx(expected)
    # One bin, for the run is shorter than a second.
    assert result.timeseries["power_w"].tolist() == pytest.approx([22.56915 / 0.1014])


def test_an_idle_replica_adds_its_idle_energy_and_nothing_else() -> None:
    """Round robin over three: replica 2 gets request 2 only, none is shared.

    Alone, 0 decodes without 1: [1.4, 2.5] and [2.5, 3.6]. Busy: 1.4 + 2 x 1.1, then
    1.8 and 1.4; the horizon stays. A fourth replica idles for 101.4 ms at 200 W.
    """
    words = ("parallel.router=round-robin", "cluster.nodes=4")
    three = run(*words, "parallel.replicas=3").summary
    four = run(*words, "parallel.replicas=4").summary
    busy_ms = 1.4 + 2 * 1.1 + 1.8 + 1.4
    assert three["energy_idle_j"] == pytest.approx(0.2 * (3 * 101.4 - busy_ms))
    assert four["energy_j"] - three["energy_j"] == pytest.approx(0.2 * 101.4)
    same = ("energy_run_j", "energy_wait_j", "energy_hbm_j", "energy_flop_j", "flops")
    assert [four[name] for name in same] == [three[name] for name in same]
    assert np.isclose(four["mean_ttft_ms"], three["mean_ttft_ms"], rtol=0, atol=0)
