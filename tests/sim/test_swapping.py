"""Swap preemption: by hand, by law, against recomputation and stepping."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim.shell.replica as replica_module
from calibration.hardware import gpu
from calibration.host_link import host_link
from calibration.models import model
from sim.build import build_machine
from sim.build_swap import swap_space
from sim.cli import main
from sim.config_file import load_config
from sim.errors import SimulationError
from sim.host_link import HostLink
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.request import RequestRecord, TokenRun
from sim.runner import prepare, run_config, run_prepared
from sim.schedulers import SCHEDULERS
from sim.step_parts import PARTS
from sim.studies.study import read_study
from sim.studies.sweep import SweepOptions, plan_sweep, sweep
from tests.cases import cases
from tests.sim.pricing import Scenario, requests, scenarios, serve
from tests.sim.swapping import (
    BOARDS,
    LINK,
    PAIR,
    engines_of,
    iterate,
    swapped,
    tokens_of,
)
from tests.sim.test_fast_forward import assert_same
from tests.sim.test_outages import outages

FEW = cases(8)
every_scheduler = pytest.mark.parametrize("name", sorted(SCHEDULERS))
SWAP = "engine.preemption_mode=swap"
SMALL = (
    SWAP,
    "model.name=Qwen/Qwen3-8B",
    "cluster.gpus_per_node=1",
    "parallel.tensor_parallel_size=1",
    "engine.kv_cache_tokens=4000",
    "engine.max_model_len=3500",
    "workload.dataset=random",
    "workload.random_input_len=400",
    "workload.random_output_len=300",
    "workload.request_rate=inf",
    "workload.num_requests=16",
)
FIVE = (
    *(*SMALL[:-1], "workload.num_requests=5", "workload.random_output_len=99"),
    *("engine.kv_cache_tokens=2100", "engine.max_model_len=600"),
)


def test_a_swap_by_hand() -> None:
    """4 layers; 100 ns + 10 per decode + 1 per prompt token and layer; 7 per block.

    Both prompts until 116, a block each. Then both need a second one and one is free:
    the block of 1 goes to the host, 7 + 110, until 233. 0 decodes to its fourth token
    at 453; its three blocks leave no room for the block of 1, one more. Alone it comes
    back, 7 + 110 until 570, and decodes its last two until 790. Recomputed, without
    copies, it prefills 3 tokens from 446 on: 100 + 12 until 558.
    """
    run, (engine,) = swapped("orca", PAIR, host_blocks=10)
    assert tokens_of(run) == [[116, 233, 343, 453], [116, 570, 680, 790]]
    first, second = run.records
    assert first.runs == [TokenRun(116, 0, 3)]
    assert second.runs == [TokenRun(116, 0, 0), TokenRun(570, 4, 6, resumed=True)]
    assert second.preemptions == 1
    log = run.logs[0]
    assert list(log.prefill_layer_tokens) == [16, 0, 0, 0, 0, 0, 0]
    assert list(log.used_blocks) == [2, 2, 2, 3, 2, 2, 3]
    (swaps,) = run.swaps
    assert list(swaps.start_ns) == [116, 453]
    assert list(zip(swaps.blocks_out, swaps.blocks_in, strict=True)) == [(1, 0), (0, 1)]
    assert engine.free_host_blocks == 10
    assert engine.free_blocks == 3
    recomputed = serve("orca", PAIR)
    assert recomputed.tokens[1] == [116, 558, 668, 778]


def test_copies_cost_what_waiting_costs() -> None:
    """A block of 1 kB out and back: 14 ns waiting at 2 x 200 W, 2 kB at 50 pJ."""
    run, _ = swapped("orca", PAIR, host_blocks=10)
    totals = run.logs[0].totals
    assert totals["wait_ns"] == 14
    assert totals["kv_bytes"] == 2000
    assert totals["energy_wait_j"] == pytest.approx(14e-9 * 400)
    assert totals["energy_hbm_j"] == pytest.approx(2000 * 50e-12)
    assert totals["energy_run_j"] == totals["energy_flop_j"] == 0
    assert LINK.copy_cost(3, BOARDS).energy_j == pytest.approx(21e-9 * 400 + 1.5e-7)


def test_the_second_victim_is_recomputed_where_the_host_is_full() -> None:
    """Room for one block: of two victims the newer goes there, the older loses its.

    It waits in front of the newer one, which comes back only after it.
    """
    case = replace(PAIR, requests=requests((0, 2, 4), (0, 2, 4), (0, 2, 4)))
    run, _ = swapped("orca", case, host_blocks=1)
    log = run.swaps[0]
    assert [sum(log.blocks_out), sum(log.blocks_in)] == [1, 1]
    older, newer = run.records[1:]
    assert [older.preemptions, newer.preemptions] == [1, 1]
    assert [r.runs[-1].resumed for r in run.records] == [False, False, True]
    assert older.runs[1].first_ns < newer.runs[1].first_ns


def test_nobody_overtakes_who_is_on_the_host() -> None:
    """A prompt of one block would fit from 233 on, and waits for the request before."""
    case = replace(PAIR, requests=requests((0, 2, 4), (0, 2, 4), (120, 1, 1)))
    run, _ = swapped("orca", case, host_blocks=10)
    assert run.records[2].first_scheduled_ns == 453
    assert tokens_of(run)[1][1] == 100 + 10 + 7 + 4 + 453


def test_a_policy_may_not_admit_who_is_on_the_host() -> None:
    (engine,) = engines_of("orca", PAIR, 10)
    for request in PAIR.requests:
        engine.submit(RequestRecord(request=request, arrival_ns=0, runs=[]))
    iterate(engine, 0, 116)
    (head,) = engine.waiting
    assert (head.id, head.tokens, head.resumed, head.swapped) == (1, 3, True, True)
    span = LayerSpan(0, 4, (PrefillChunk(1, 0, 3),))
    with pytest.raises(SimulationError, match="request 1 admitted, whose KV cache"):
        engine.begin(StepPlan((span,)), 300)


@every_scheduler
@FEW
@given(
    case=scenarios(max_replicas=2, closed_loop=True),
    queue=st.sampled_from(["fcfs", "sjf", "vtc"]),
    host_blocks=st.integers(1, 12) | st.just(1000),
    block_ns=st.integers(0, 90),
    fewest=st.sampled_from([2, 6]),
)
def test_random_runs_keep_every_law_and_are_those_of_stepping(
    name: str,
    case: Scenario,
    queue: str,
    host_blocks: int,
    block_ns: int,
    fewest: int,
) -> None:
    """Both are checked event by event; a large pool computes every prompt once."""
    case = replace(case, queue=queue)
    link = replace(LINK, block_ns=block_ns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica_module, "_FEWEST", fewest)
        fast, engines = swapped(name, case, host_blocks, link=link)
    slow, _ = swapped(name, case, host_blocks, link=link, fast=False)
    assert_same(fast, slow)
    for engine, swaps, log in zip(engines, fast.swaps, fast.logs, strict=True):
        assert engine.free_blocks == case.num_blocks
        assert engine.free_host_blocks == host_blocks
        assert sum(swaps.blocks_in) == sum(swaps.blocks_out)
        assert log.totals["kv_bytes"] == 2000 * sum(swaps.blocks_out)
        assert log.totals["wait_ns"] == 2 * block_ns * sum(swaps.blocks_out)
    if host_blocks == 1000:
        served = [r.request for r in fast.records if r.rejected is None]
        computed = sum(sum(log.prefill_layer_tokens) for log in fast.logs)
        prompts = sum(request.prompt_tokens for request in served)
        assert computed == prompts * case.at.num_layers


@every_scheduler
@FEW
@given(case=scenarios(max_replicas=2), queue=st.sampled_from(["fcfs", "sjf"]))
def test_without_room_on_the_host_all_is_recomputed(
    name: str, case: Scenario, queue: str
) -> None:
    """The engine without a host pool, bit for bit, in either order."""
    case = replace(case, queue=queue)
    run, _ = swapped(name, case, host_blocks=0)
    assert run.records == serve(name, case).run.records


@FEW
@given(
    case=scenarios(max_replicas=1),
    at_ns=st.integers(1, 3000),
    name=st.sampled_from(sorted(SCHEDULERS)),
)
def test_a_failing_replica_loses_what_its_host_holds(
    case: Scenario, at_ns: int, name: str
) -> None:
    """Also in the middle of a copy; all is served anew."""
    away = outages(1, (0, "failure", at_ns, at_ns + 500))
    runs = [
        swapped(name, case, 1000, away=away, fast=fast)[0] for fast in (True, False)
    ]
    assert_same(*runs)
    assert all(r.finish_ns is not None or r.rejected for r in runs[0].records)


def test_the_link_of_a_replica_by_hand() -> None:
    """Qwen3-8B: 36 layers, 8 heads of 128, bfloat16: 2 KiB per token and K or V.

    72 copies of 32 KiB take 6 us to submit each and 0.7 us (H100, 48 GB/s) on the way.
    Blocks of 512 tokens are 1 MiB a piece, 21.8 us; half on each of two GPUs. A100 has
    half the bandwidth. A block of DeepSeek-V3 is one piece per layer: 61 latents of 576
    values, whole on each of 8 GPUs.
    """
    one = load_config(None, ("model.name=Qwen/Qwen3-8B", *SMALL[2:4]))
    alone = build_machine(one).deployment
    device = gpu("h100_sxm")
    assert host_link(device, alone, 16) == HostLink(
        block_ns=72 * 6000, block_bytes=72 * 2**15
    )
    assert host_link(device, alone, 512) == HostLink(
        block_ns=round(72 * 2**20 / 48), block_bytes=72 * 2**20
    )
    pair = replace(alone, tp=2)
    assert host_link(device, pair, 512) == HostLink(
        block_ns=round(72 * 2**19 / 48), block_bytes=72 * 2**20
    )
    assert host_link(gpu("a100_sxm"), alone, 512).block_ns == round(72 * 2**20 / 24)
    assert host_link(gpu("gb200"), alone, 16) is None
    shape = model("deepseek-ai/DeepSeek-V3")
    latent = replace(alone, model=shape, tp=8)
    assert host_link(gpu("h200_sxm"), latent, 16) == HostLink(
        block_ns=61 * 6000, block_bytes=61 * 16 * 576 * 2 * 8
    )


def test_a_run_of_a_real_model() -> None:
    """Counts, bytes, time and energy of its files; every law holds."""
    result = run_config(load_config(None, SMALL), check=True)
    summary = result.summary
    block_bytes = 72 * 2**15
    assert summary["swap_space_blocks"] == 4 * 2**30 // block_bytes
    assert summary["swapped_out"] == summary["swapped_in"] == summary["preemptions"] > 3
    blocks, left = divmod(summary["swapped_out_bytes"], block_bytes)
    assert (summary["swapped_in_bytes"], left) == (blocks * block_bytes, 0)
    assert summary["swap_s"] == pytest.approx(2 * blocks * 72 * 6e-6)
    swapped_in = result.iterations.merge(result.steps, on=["replica", "start_ns"])
    assert len(swapped_in)
    steps = result.steps.groupby(["replica", "iteration"])
    parts = steps[[f"{part}_ns" for part in PARTS]].sum().sum(axis=1)
    assert (parts == steps["end_ns"].first() - steps["start_ns"].first()).all()
    plain = run_config(load_config(None, SMALL[1:])).summary
    assert not [key for key in plain if key.startswith("swap")]
    assert plain["preemptions"] > 3
    assert plain["flops"] > summary["flops"]


def test_kernel_fidelity_adds_the_same_copies() -> None:
    """Copies come before the iteration, and nothing runs beside them."""
    one, kernel = (
        run_config(load_config(None, (*FIVE, f"engine.fidelity={fidelity}"))).summary
        for fidelity in ("iteration", "kernel")
    )
    assert one["duration"] == kernel["duration"]
    assert one["swapped_out_bytes"] == kernel["swapped_out_bytes"] > 0


def test_a_trace_shows_the_copies() -> None:
    prepared = prepare(load_config(None, FIVE))
    result = run_prepared(prepared, trace=True)
    assert result.trace is not None
    host_us = sum(
        event["dur"]
        for event in result.trace["traceEvents"]
        if event.get("name") == "host"
    )
    assert host_us > result.summary["swap_s"] * 1e6 > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("engine.preemption_mode=swop",),
            'must be one of "recompute", "swap"; did you mean "swap"?',
        ),
        (("engine.swap_space=2.0",), 'needs engine.preemption_mode = "swap"'),
        ((SWAP, "engine.swap_space=0.0"), "engine.swap_space = 0.0: must be"),
        ((SWAP, "engine.swap_space=0.0001"), "must hold a KV block: >= 0.000732 GiB"),
        ((SWAP, "cluster.gpu=gb200"), 'must be "recompute" on gb200'),
        (
            (SWAP, "engine.enable_prefix_caching=true"),
            "engine.enable_prefix_caching = true: must be false with"
            ' engine.preemption_mode = "swap"',
        ),
        (
            (SWAP, "parallel.replicas=2", "parallel.prefill_replicas=1"),
            "parallel.prefill_replicas = 1: must be none with",
        ),
        (
            (SWAP, "parallel.pipeline_parallel_size=2"),
            "parallel.pipeline_parallel_size = 2: must be 1 with",
        ),
        (
            (
                *(SWAP, "parallel.expert_parallel_size=2", "moe.placement=lpt"),
                "moe.rebalance_interval=9",
            ),
            "moe.rebalance_interval = 9: must be none with",
        ),
    ],
)
def test_what_is_not_modelled_is_one_line_and_exit_code_2(
    settings: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("cluster.gpus_per_node=4", "workload.num_requests=2", *settings)
    with pytest.raises(SystemExit) as caught:
        main(("run", *(word for each in words for word in ("--set", each))))
    assert caught.value.code == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_a_sweep_has_mode_and_pool_as_axes(tmp_path: Path) -> None:
    """A small pool sends some back to the prefill; its rows say how many."""
    study = tmp_path / "study.toml"
    study.write_text("""
[[vary]]
engine.preemption_mode = ["swap"]
engine.swap_space = [0.08, 4.0]
[[vary]]
engine.preemption_mode = ["recompute"]
""")
    sweep(
        plan_sweep(read_study(study, SMALL[1:])), tmp_path / "out", SweepOptions(jobs=1)
    )
    frame = pd.read_csv(tmp_path / "out" / "points.csv")
    small, large, none = frame["swapped_out"]
    assert 0 < small < large == frame["preemptions"][1]
    assert math.isnan(none)


def test_no_pool_without_the_mode() -> None:
    config = load_config(None, SMALL[1:])
    assert swap_space(config, build_machine(config)) is None
