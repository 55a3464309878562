"""Fused MoE layers: the table at its own routing, the roofline elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from calibration.kernels.experts import Experts, Inefficiency
from calibration.kernels.moe_roofline import MoeSlice
from calibration.kernels.routing_model import synthetic_load
from calibration.tables import DATA_DIR, KernelTables, load_tables
from tests.calibration.kernel_checks import (
    EXPERTS,
    LAYERS,
    geometric,
    never_falls,
    smoothed,
)
from workloads.coverage import ExpertCoverage, routing_skew


@pytest.fixture(scope="module")
def h100() -> KernelTables:
    return load_tables("h100_sxm")


@pytest.fixture(scope="module", params=["moe", "moe_untuned"])
def moe_table(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def experts_of(tables: KernelTables, table: str) -> Experts:
    return Experts(tables, table, "bfloat16", EXPERTS, Inefficiency())


def test_synthetic_routing_touches_the_published_share() -> None:
    """Balanced / exponent 1.01 / 1.2 at 8, 16 and 32 tokens, within 0.06."""
    published = {8: (0.50, 0.40, 0.35), 16: (1.0, 0.51, 0.48), 32: (1.0, 0.83, 0.84)}
    laws = ("balanced", "power_law_1.01", "power_law_1.2")
    for tokens, shares in published.items():
        for law, share in zip(laws, shares, strict=True):
            load = synthetic_load(tokens, 128, 8, 1, law, 16)
            assert load.touched / 128 == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("law", ["balanced", "power_law_1.01", "power_law_1.2"])
@pytest.mark.parametrize("ep", [1, 2, 8])
@pytest.mark.parametrize("tokens", [1, 24, 777])
def test_synthetic_load_conserves_pairs(law: str, ep: int, tokens: int) -> None:
    """All pairs on one rank; the hottest of several has at least its share."""
    load = synthetic_load(tokens, 128, 8, ep, law, 16)
    assert load.pairs >= tokens * 8 / ep - 1e-9
    assert ep > 1 or load.pairs == tokens * 8
    assert load.touched <= min(load.pairs, 128 / ep)
    assert load.pairs <= load.padded_pairs <= load.pairs + 15 * load.touched
    assert load.padded_pairs >= 16 * load.touched


def test_experts_hit_the_table_at_its_own_routing(
    h100: KernelTables, moe_table: str
) -> None:
    """With the experts touched that the profiled run had, its time comes back.

    Loads between the token counts they are stored for are interpolated: 1 %.
    """
    moe = experts_of(h100, moe_table)
    rows = h100.select(
        moe_table,
        dtype="bfloat16",
        distribution="power_law_1.2",
        hidden_size=2048,
        inter_size=768,
        topk=8,
        num_experts=128,
        moe_tp_size=2,
        moe_ep_size=1,
    )
    assert rows["num_tokens"].size > 20
    for n, ns in zip(rows["num_tokens"], smoothed(rows["latency_ns"]), strict=True):
        touched = synthetic_load(int(n), 128, 8, 1, "power_law_1.2", 16).touched
        assert moe.at(int(n), touched).ns == pytest.approx(ns, rel=0.01)


@pytest.mark.parametrize("tokens", [64, 1024, 8192])
def test_expert_parallel_ranks_hold_their_share(
    h100: KernelTables, tokens: int
) -> None:
    """EP2: with twice what the hottest rank touched, the table's time comes back."""
    split = replace(EXPERTS, moe_tp_size=1, moe_ep_size=2)
    moe = Experts(h100, "moe", "bfloat16", split, Inefficiency())
    rows = h100.select(
        "moe",
        dtype="bfloat16",
        distribution="power_law_1.2",
        hidden_size=2048,
        inter_size=768,
        topk=8,
        num_experts=128,
        moe_tp_size=1,
        moe_ep_size=2,
        num_tokens=tokens,
    )
    touched = 2 * synthetic_load(tokens, 128, 8, 2, "power_law_1.2", 16).touched
    expected = pytest.approx(int(rows["latency_ns"][0]), rel=0.02)
    assert moe.at(tokens, touched).ns == expected


@pytest.mark.parametrize("touched", [32.0, 100.0])
@pytest.mark.parametrize("tokens", [16, 1024, 8192])
@pytest.mark.parametrize("factors", [(1.0, 1.0), (1.8, 1.25)])
def test_fewer_experts_cost_the_ratio_of_rooflines(
    h100: KernelTables, tokens: int, touched: float, factors: tuple[float, float]
) -> None:
    """Table time times roofline(touched) / roofline(its own routing), term by term.

    t = t0 + ((W / bw)^q + (F / peak)^q)^(1/q) + A / bw_a, with half a tile of padding
    per expert touched; an engine's factors on the first two terms hold for batches of
    more tokens than experts.
    """
    fits = json.loads((DATA_DIR / "moe_roofline.json").read_text())
    fit = fits["slices"]["h100_sxm/moe/bfloat16/2048-768-8-128-2-1"]
    load = synthetic_load(tokens, 128, 8, 1, "power_law_1.2", fit["tile"])
    weights = 3 * 2048 * 384  # of one expert on one GPU

    def bound_ns(experts: float, rows: float, memory: float, compute: float) -> float:
        read = memory * 2 * experts * weights / fit["bytes_per_ns"]
        multiply = compute * 2 * rows * weights / fit["flops_per_ns"]
        moved = tokens * 8 * 2 * (2 * 2048 + 3 * 384) / fit["activation_bytes_per_ns"]
        q = fit["q"]
        return float(fit["t0_ns"] + (read**q + multiply**q) ** (1 / q) + moved)

    memory, compute = factors if tokens > 128 else (1.0, 1.0)
    rows = load.padded_pairs + (touched - load.touched) * fit["tile"] / 2
    rows = max(rows, tokens * 8)
    actual = bound_ns(touched, rows, memory, compute)
    table_ns = experts_of(h100, "moe").at(tokens, load.touched).ns
    expected = table_ns * actual / bound_ns(load.touched, load.padded_pairs, 1.0, 1.0)
    moe = Experts(h100, "moe", "bfloat16", EXPERTS, Inefficiency(*factors))
    assert moe.at(tokens, touched).ns == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("tokens", [1, 16, 128, 512, 8192, 30_000])
def test_experts_cost_more_when_more_are_touched(
    h100: KernelTables, moe_table: str, tokens: int
) -> None:
    """At any number of tokens."""
    moe = experts_of(h100, moe_table)
    assert never_falls(lambda n: moe.at(tokens, float(n)), range(1, 129))


def test_experts_never_fall_with_tokens_under_real_routing(
    h100: KernelTables, moe_table: str
) -> None:
    """Decode batches and single prompts touch more experts as they grow."""
    coverage = ExpertCoverage(128, 8, routing_skew("Qwen/Qwen3-30B-A3B"))
    moe = experts_of(h100, moe_table)
    decode_sizes, prompt_sizes = geometric(1, 2000), geometric(1, 40_000)
    assert never_falls(lambda n: moe.at(n, coverage.touched(n)), decode_sizes)
    assert never_falls(lambda n: moe.at(n, coverage.touched(0, (n,))), prompt_sizes)


def test_experts_beyond_the_table_are_flagged_and_continuous(
    h100: KernelTables, moe_table: str
) -> None:
    """16384 tokens are the most profiled; then time grows with the work."""
    moe = experts_of(h100, moe_table)
    edge, beyond = moe.at(16384, 128.0), moe.at(16385, 128.0)
    assert edge.extrapolated_ns == 0
    assert beyond.extrapolated_ns == beyond.ns
    assert beyond.ns == pytest.approx(edge.ns, rel=1e-3)
    assert 1.7 * edge.ns < moe.at(32768, 128.0).ns < 2.1 * edge.ns


def test_experts_of_an_unprofiled_shape_are_extrapolated(h100: KernelTables) -> None:
    """The nearest slice's roofline, marked as such."""
    shape = MoeSlice(2048, 700, 8, 128, 2, 1)
    moe = Experts(h100, "moe", "bfloat16", shape, Inefficiency())
    timed, profiled = moe.at(512, 110.0), experts_of(h100, "moe").at(512, 110.0)
    assert timed.extrapolated_ns == timed.ns
    assert 0.6 * profiled.ns < timed.ns < 1.1 * profiled.ns


# Tokens: total ms of an 8192-token prompt in chunks, by table, at its own routing.
MOE_TOTALS = {
    "moe": {512: 207, 1024: 118, 2048: 80, 4096: 57, 8192: 47},
    "moe_untuned": {512: 240, 1024: 146, 2048: 100, 4096: 85, 8192: 78},
}


def test_experts_of_one_prompt(h100: KernelTables, moe_table: str) -> None:
    """All chunks, all layers, vLLM 0.24 and 0.14 tables, within 2 %."""
    moe = experts_of(h100, moe_table)
    for chunk, published_ms in MOE_TOTALS[moe_table].items():
        touched = synthetic_load(chunk, 128, 8, 1, "power_law_1.2", 16).touched
        ms = LAYERS * 8192 // chunk * moe.at(chunk, touched).ns / 1e6
        assert ms == pytest.approx(published_ms, rel=0.02)


def test_experts_of_a_decode_iteration(h100: KernelTables) -> None:
    """Published with the tables' own routing, within 2 %."""
    moe = experts_of(h100, "moe")
    published = {1: 1.30, 2: 2.31, 4: 3.35, 8: 4.74, 16: 6.10, 32: 9.44, 64: 10.7}
    for batch, published_ms in published.items():
        touched = synthetic_load(batch, 128, 8, 1, "power_law_1.2", 16).touched
        ms = LAYERS * moe.at(batch, touched).ns / 1e6
        assert ms == pytest.approx(published_ms, rel=0.02)
