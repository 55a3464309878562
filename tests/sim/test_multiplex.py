"""Prefill and decode at once on shares of the SMs: by hand, by law, in real runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.build import build_machine
from sim.build_multiplex import shared_gpus
from sim.compare import plan_points
from sim.config_file import load_config
from sim.energy import PowerModel
from sim.engine import Engine
from sim.errors import ConfigError
from sim.multiplex import MultiplexPricer, SharedGpus
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.routers import ROUTERS
from sim.runner import prepare, run_config, run_prepared
from sim.schedulers.multiplexed_prefill import MultiplexedPrefill
from sim.shell.cluster import Cluster
from sim.step import StepCost
from sim.step_cost import HostTimes
from tests.cases import cases
from tests.sim.pricing import (
    LinearPricer,
    Planned,
    Recorder,
    Scenario,
    limits,
    requests,
    scenarios,
    step_cost,
)
from tests.sim.test_fast_forward import ManyPricer

SCHEDULER = "engine.scheduler=multiplexed-prefill"
SMALL = (
    SCHEDULER,
    "model.name=Qwen/Qwen3-8B",
    "cluster.gpus_per_node=1",
    "parallel.tensor_parallel_size=1",
    "workload.dataset=sharegpt",
    "workload.request_rate=8.0",
    "workload.num_requests=30",
)
GBPS = 10**9  # a byte per ns
POWER = PowerModel(
    num_gpus=1,
    run_w=300.0,
    gap_w=200.0,
    idle_w=100.0,
    cap_w=700.0,
    hbm_pj_per_byte=50.0,
    pj_per_flop=1.0,
)
HOST = HostTimes(100, 300, 999, 777, per_layer_ns=5, per_sequence_ns=10)
LAYERS = 4


@dataclass(frozen=True)
class PhasePricer:
    """A phase as an iteration of its own: these kernels, and what is around them."""

    kernel_ns: int
    moved: int
    flops: int = 0
    collective_ns: int = 0

    def price(self, plan: StepPlan, decoding: int, context_tokens: int) -> StepCost:
        gap_ns = HOST.gap_ns(plan.spans, decoding, LAYERS)
        around_ns = gap_ns + LAYERS * HOST.per_layer_ns + decoding * 10
        return step_cost(
            self.kernel_ns + around_ns,
            wait_ns=gap_ns + self.collective_ns,
            kv_bytes=self.moved,
            flops=self.flops,
            extrapolated_ns=self.kernel_ns,
        )


def gpus(decode: PhasePricer, prefill: PhasePricer, bytes_per_ns: int) -> SharedGpus:
    return SharedGpus(
        decode=decode,
        prefill=prefill,
        host=HOST,
        num_layers=LAYERS,
        hbm_bytes_per_s=bytes_per_ns * GBPS,
    )


# Layer 1 and 2 of 4 prefill.
PLAN = StepPlan(
    (LayerSpan(0, 1), LayerSpan(1, 3, (PrefillChunk(0, 0, 64),)), LayerSpan(3, 4))
)
DECODE = PhasePricer(1000, 8000, flops=3000)
PREFILL = PhasePricer(2000, 12_000, flops=9000, collective_ns=200)


def test_two_phases_by_hand() -> None:
    """HBM of 10 bytes/ns; decodes move 8 in 1000 ns of kernels, prompts 6 in 2000.

    Decodes: host 100, small kernels of four layers 20 and of two requests 20, so that
    their flow begins at 140. Prompts: host 300 and two layers, 10: 310. Decodes move
    1360 bytes alone; then both get 5 bytes/ns. 6640 bytes take 1328 ns, until 1638.
    By then prompts have moved 6640 of 12,000: the rest takes 893.3 ns at their own 6,
    until 2531.3, so 2532.

    No SM runs before 100. Kernels and gaps of prompts last from 300 to 2532, alone
    after 1638: of 200 ns of collectives 200 x 894 / 2232 = 80 are waited for.
    """
    shared = gpus(DECODE, PREFILL, 10)
    overlap = shared.run(PLAN, 2, 500)
    assert (overlap.decode_end_ns, overlap.prefill_end_ns) == (1638, 2532)
    assert overlap.duration_ns == 2532
    assert overlap.wait_ns == 100 + 200 * 894 // 2232 == 180
    assert shared.ends_ns(PLAN, 2, 500) == (1638, 2532)


def test_energy_of_both_by_hand() -> None:
    """2532 ns, 180 of them waiting; 20,000 bytes at 50 pJ and 12,000 FLOPs at 1 pJ."""
    whole = ManyPricer()
    cost = MultiplexPricer(whole, gpus(DECODE, PREFILL, 10), POWER).price(PLAN, 2, 500)
    assert (cost.duration_ns, cost.wait_ns, cost.kv_bytes) == (2532, 180, 20_000)
    assert cost.extrapolated_ns == 2532  # 3000 of both, side by side
    assert cost.energy_run_j == pytest.approx(300 * 2352e-9)
    assert cost.energy_wait_j == pytest.approx(200 * 180e-9)
    assert cost.energy_hbm_j == pytest.approx(1e-6)
    assert cost.energy_flop_j == pytest.approx(12e-9)


def test_with_bandwidth_for_both_nobody_waits_for_the_other() -> None:
    """140 + 1000 and 310 + 2000, as alone."""
    assert gpus(DECODE, PREFILL, 14).ends_ns(PLAN, 2, 500) == (1140, 2310)


def test_a_phase_alone_has_the_whole_gpu() -> None:
    """Decodes only, prompts only: the undivided machine, also many at a time."""
    whole = ManyPricer(context_ns=2)
    pricer = MultiplexPricer(whole, gpus(DECODE, PREFILL, 10), POWER)
    alone = StepPlan((LayerSpan(0, LAYERS),))
    assert pricer.price(alone, 7, 90) == whole.price(alone, 7, 90)
    assert pricer.price(PLAN, 0, 0) == whole.price(PLAN, 0, 0)
    many, each = pricer.price_decodes(7, 90, 3), whole.price_decodes(7, 90, 3)
    assert many.duration_ns.tolist() == each.duration_ns.tolist()


@given(
    decode=st.tuples(st.integers(1, 5000), st.integers(0, 90_000)),
    prefill=st.tuples(st.integers(1, 5000), st.integers(0, 90_000)),
    bytes_per_ns=st.integers(1, 30),
    collective=st.fractions(0, 1),
)
@cases(30)
def test_laws_of_any_two_phases(
    decode: tuple[int, int],
    prefill: tuple[int, int],
    bytes_per_ns: int,
    collective: float,
) -> None:
    """No earlier than alone, no later than one after the other, no bandwidth but HBM's.

    A phase that asks for at most half of the bandwidth is not slowed down.
    """
    (d_ns, d_bytes), (p_ns, p_bytes) = decode, prefill
    collective_ns = int(p_ns * collective)
    shared = gpus(
        PhasePricer(d_ns, d_bytes),
        PhasePricer(p_ns, p_bytes, collective_ns=collective_ns),
        bytes_per_ns,
    )
    overlap = shared.run(PLAN, 2, 9)
    d_end, p_end = overlap.decode_end_ns, overlap.prefill_end_ns
    assert d_end >= 140 + d_ns
    assert p_end >= 310 + p_ns
    assert overlap.duration_ns <= 310 + d_ns + p_ns + 2
    assert 100 <= overlap.wait_ns <= overlap.duration_ns
    for ns, moved, start, end in (
        (d_ns, d_bytes, 140, d_end),
        (p_ns, p_bytes, 310, p_end),
    ):
        if 2 * moved <= bytes_per_ns * ns:
            assert end == start + ns
    fast = all(b <= bytes_per_ns * n for n, b in (decode, prefill))
    if fast:  # else the profiled time stands for more than HBM gives
        room = bytes_per_ns * (overlap.duration_ns - 140)
        slack = d_ns + p_ns  # whole bytes per second per nanosecond
        assert d_bytes + p_bytes <= room + slack


@dataclass(frozen=True)
class LinearClock:
    """Decodes and prompts of :class:`LinearPricer`, each with its base."""

    pricer: LinearPricer

    def ends_ns(self, plan: StepPlan, decoding: int, context: int) -> tuple[int, int]:
        alone = StepPlan((LayerSpan(0, plan.spans[-1].last),))
        return (
            self.pricer.price(alone, decoding, context).duration_ns,
            self.pricer.price(plan, 0, 0).duration_ns,
        )


def _scheduled(case: Scenario) -> list[Planned]:
    """Plans of a replica that is alone."""
    recorder = Recorder(MultiplexedPrefill(case.at, LinearClock(case.pricer)))
    engine = Engine(recorder, case.at, case.num_blocks)
    router = ROUTERS["round-robin"]()
    Cluster([engine], case.pricer, router).run(case.requests)
    return recorder.steps


def test_layers_beside_decodes_by_hand() -> None:
    """Base 100, 10 per decode and 9 per KV token, 1 per prompt token and layer.

    Nobody decodes: prompt 0 through all four layers, 100 + 4 x 10. Then it decodes
    alone, 100 + 10 + 9 x 11 = 209, and prompt 1 of 60 tokens has 109 ns beside it: one
    layer; again beside 12 and 13 tokens (118, 127): two layers from 120 on, so the last
    two at 14 tokens, 136.
    """
    case = Scenario(
        requests((0, 10, 9), (1, 60, 1)),
        limits(block_size=100),
        pricer=LinearPricer(context_ns=9),
    )
    layers = [step.prefill_layers for step in _scheduled(case)][:4]
    assert layers == [(0, 4), (0, 1), (1, 2), (2, 4)]


@given(case=scenarios())
@cases(40)
def test_prompts_take_as_many_layers_as_decodes_hide(case: Scenario) -> None:
    """One at least, all if nobody decodes; one more would end after the decodes."""
    clock, num_layers = LinearClock(case.pricer), case.at.num_layers
    for step in _scheduled(case):
        if step.prefill_layers is None:
            continue
        first, last = step.prefill_layers
        gone = set(step.plan.preempted)
        kept = [stored for who, stored in step.decoding if who not in gone]
        if not kept:
            assert last == num_layers
            continue

        context = sum(kept) + len(kept)

        def hidden(end: int, *, of: StepPlan, decoding: int, context: int) -> bool:
            spans = [s for s in of.spans if s.prefill]
            span = LayerSpan(spans[0].first, end, spans[0].prefill)
            rest = (LayerSpan(end, num_layers),) if end < num_layers else ()
            ends = clock.ends_ns(StepPlan((span, *rest)), decoding, context)
            return ends[1] <= ends[0]

        beside = partial(hidden, of=step.plan, decoding=len(kept), context=context)
        assert last == first + 1 or beside(last)
        assert last == num_layers or not beside(last + 1)


def test_shares_of_a_real_machine() -> None:
    """Few decodes are bound by HBM at any share; prompts by arithmetic: 1 / share.

    But for norms and activations, which HBM bounds.
    """

    def phases(share: float) -> tuple[int, int]:
        words = (SCHEDULER, f"engine.prefill_sm_share={share}")
        config = load_config(None, (*words, *SMALL[1:4]))
        shared = shared_gpus(config, build_machine(config))
        assert shared is not None
        layers = shared.num_layers
        chunks = (PrefillChunk(0, 0, 8192),)
        plan = StepPlan((LayerSpan(0, 4, chunks), LayerSpan(4, layers)))
        overlap = shared.run(plan, 4, 8000)
        return overlap.decode.kernel_ns, overlap.prefill.kernel_ns

    half_decode, half_prefill = phases(0.5)
    less_decode, quarter_prefill = phases(0.25)
    assert half_decode == less_decode
    assert 1.85 < quarter_prefill / half_prefill <= 2.0


def test_a_run_says_that_it_is_a_what_if() -> None:
    """Every law holds: busy + idle = horizon, energy adds up, TBT below the mixed."""
    result = run_config(load_config(None, SMALL), check=True)
    summary = result.summary
    assert summary["what_if"] == "engine.prefill_sm_share = 0.5 (unvalidated)"
    assert summary["what_if_kernels"] == "linear, experts, attention, head"
    assert summary["completed"] == 30
    assert result.steps.empty
    mixed = run_config(load_config(None, ("engine.scheduler=orca", *SMALL[1:]))).summary
    assert mixed["what_if"] == ""
    assert summary["p99_itl_ms"] < mixed["p99_itl_ms"]
    assert summary["total_output_tokens"] == mixed["total_output_tokens"]


def test_it_is_compared_as_one_more_policy() -> None:
    """On the same requests; only it is a what-if."""
    words = ("chunked-prefill", "multiplexed-prefill")
    settings = (*SMALL[1:5], "workload.num_requests=12")
    plan = plan_points(None, settings, schedulers=words, rates=(8.0,))
    mixed, at_once = (run_config(point.config, check=True) for point in plan.points)
    assert (mixed.summary["what_if"], mixed.summary["scheduler"]) == ("", words[0])
    assert at_once.summary["what_if"].startswith("engine.prefill_sm_share = 0.5")
    assert at_once.summary["workload_sha256"] == mixed.summary["workload_sha256"]
    assert at_once.summary["p99_itl_ms"] < mixed.summary["p99_itl_ms"]
    assert at_once.summary["request_goodput"] > 0 < at_once.summary["energy_j"]


def test_swapping_goes_with_it() -> None:
    settings = ("engine.kv_cache_tokens=5000", "engine.max_model_len=4000")
    words = (*SMALL, "engine.preemption_mode=swap", *settings)
    assert run_config(load_config(None, words), check=True).summary["swapped_out"] > 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("engine.prefill_sm_share=1.0", "must be a number >= 0.01 and <= 0.99"),
        ("engine.prefill_sm_share=0.0", "must be a number >= 0.01 and <= 0.99"),
        ("engine.fidelity=kernel", "iteration"),
        ("parallel.pipeline_parallel_size=2", "must be 1 with multiplexed-prefill"),
    ],
)
def test_what_is_not_modelled_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, (SCHEDULER, "cluster.gpus_per_node=4", setting))


def test_a_trace_is_refused() -> None:
    prepared = prepare(load_config(None, (*SMALL[:-1], "workload.num_requests=2")))
    with pytest.raises(ConfigError, match="must be another with --trace"):
        run_prepared(prepared, trace=True)
