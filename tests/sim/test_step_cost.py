"""The closed form of an iteration against a literal loop over layers and kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.energy import PowerModel
from sim.model_work import LatentWork, LayerKind, ModelWork, attended_pairs
from sim.plan import LayerSpan, PrefillChunk, StepPlan
from sim.step import StepCost
from sim.step_cost import HostTimes, StepCostModel
from tests.sim.literal_cost import Kernels, Literal, Routing, padded
from tests.sim.pricing import QUICK

POWER = PowerModel(
    num_gpus=2,
    run_w=3.0,
    gap_w=2.0,
    idle_w=1.0,
    cap_w=1e9,
    hbm_pj_per_byte=4.0,
    pj_per_flop=5.0,
)
HOST = HostTimes(decode_ns=1000, prefill_ns=2000, mixed_ns=3000, layered_ns=4000)


def work(
    windows: Sequence[int], leading: int = 0, absorbed: int | None = None
) -> ModelWork:
    """Round numbers per layer; ``windows`` as in the model catalogue, 0 = full."""
    layers = range(len(windows) + 1)
    before = [sum(w > 0 for w in windows[:n]) for n in layers]
    dense = LayerKind(
        before=tuple(min(n, leading) for n in layers),
        weight_bytes=2_000_003,
        row_activation_bytes=103,
        row_flops=223,
        leading=True,
    )
    rest = LayerKind(
        before=tuple(max(n - leading, 0) for n in layers),
        weight_bytes=1_000_003,
        row_activation_bytes=101,
        row_flops=211,
    )
    return ModelWork(
        num_layers=len(windows),
        kinds=(rest, dense) if leading else (rest,),
        windowed_before=tuple(before),
        window=max(windows),
        expert_bytes=10_007.5,
        head_weight_bytes=500_009,
        head_flops=307,
        pair_flops=401,
        kv_bytes=503,
        all_reduce_bytes=601,
        gather_bytes=607,
        latent=None
        if absorbed is None
        else LatentWork(
            absorbed_chunk_tokens=absorbed,
            absorbed_pair_flops=409,
            expand_flops=419,
            expand_bytes=421,
        ),
    )


def model(
    windows: Sequence[int] = (0, 0, 0, 0),
    *,
    dense: bool = False,
    host: HostTimes = HOST,
    leading: int = 0,
    absorbed: int | None = None,
) -> StepCostModel:
    return StepCostModel(
        kernels=Kernels(),
        coverage=None if dense else Routing(),
        work=work(windows, leading, absorbed),
        host=host,
        padded=padded,
        power=POWER,
    )


WINDOWS = st.lists(st.sampled_from([0, 12]), min_size=1, max_size=8)
CHUNK = st.builds(
    PrefillChunk,
    request_id=st.just(0),
    start=st.integers(0, 40),
    tokens=st.integers(1, 60),
)


@st.composite
def iterations(draw: st.DrawFn) -> tuple[list[int], StepPlan, int, int]:
    """Any window pattern, any split in spans, any chunks in one of them."""
    windows = draw(WINDOWS)
    layers = len(windows)
    cuts = sorted(draw(st.sets(st.integers(1, layers), max_size=2)) - {layers})
    bounds = [0, *cuts, layers]
    busy = draw(st.integers(0, len(bounds) - 2))
    chunks = tuple(draw(st.lists(CHUNK, max_size=3)))
    spans = tuple(
        LayerSpan(first, last, chunks if i == busy else ())
        for i, (first, last) in enumerate(pairwise(bounds))
    )
    decoding = draw(st.integers(0 if chunks else 1, 20))
    return windows, StepPlan(spans), decoding, decoding * draw(st.integers(1, 30))


@QUICK
@given(
    case=iterations(),
    dense=st.booleans(),
    leading=st.integers(0, 3),
    absorbed=st.none() | st.integers(0, 30),
)
def test_price_equals_the_literal_loop(
    case: tuple[list[int], StepPlan, int, int],
    dense: bool,
    leading: int,
    absorbed: int | None,
) -> None:
    """Time, waits, extrapolation, bytes, links and FLOPs, to the last unit."""
    windows, plan, decoding, context = case
    literal = Literal(windows, dense, leading=leading, absorbed=absorbed)
    literal.run(plan, decoding, context)
    pricer = model(windows, dense=dense, leading=leading, absorbed=absorbed)
    cost = pricer.price(plan, decoding, context)
    host_ns = cost.duration_ns - literal.ns
    assert host_ns in (1000, 2000, 3000, 4000)
    assert pricer.kernel_ns(plan, decoding, context) == literal.ns
    assert cost.wait_ns == literal.wait_ns + host_ns
    for name in StepCost._fields:
        if not name.startswith("energy") and not name.endswith(
            ("duration_ns", "wait_ns")
        ):
            assert getattr(cost, name) == getattr(literal, name), name
    assert pricer.price(plan, decoding, context) == cost


@QUICK
@given(case=iterations())
def test_energy_follows_from_time_and_traffic(
    case: tuple[list[int], StepPlan, int, int],
) -> None:
    """The parts are those of the power model on the iteration's own numbers."""
    windows, plan, decoding, context = case
    cost = model(windows).price(plan, decoding, context)
    moved = cost.expert_weight_bytes + cost.other_weight_bytes
    moved += cost.kv_bytes + cost.activation_bytes
    parts = (
        2 * 3.0 * (cost.duration_ns - cost.wait_ns) * 1e-9,
        2 * 2.0 * cost.wait_ns * 1e-9,
        4e-12 * moved,
        5e-12 * cost.flops,
    )
    split = (
        cost.energy_run_j,
        cost.energy_wait_j,
        cost.energy_hbm_j,
        cost.energy_flop_j,
    )
    assert split == pytest.approx(parts)
    assert cost.energy_j == pytest.approx(sum(parts))


HOST_KINDS = [
    ((LayerSpan(0, 4),), 3, 1000),
    ((LayerSpan(0, 4, (PrefillChunk(0, 0, 9),)),), 0, 2000),
    ((LayerSpan(0, 4, (PrefillChunk(0, 0, 9),)),), 3, 3000),
    ((LayerSpan(0, 1), LayerSpan(1, 4, (PrefillChunk(0, 0, 9),))), 3, 4000),
    ((LayerSpan(0, 1), LayerSpan(1, 4, (PrefillChunk(0, 0, 9),))), 0, 4000),
]


@pytest.mark.parametrize(("spans", "decoding", "expected"), HOST_KINDS)
def test_host_overhead_by_kind_of_iteration(
    spans: tuple[LayerSpan, ...], decoding: int, expected: int
) -> None:
    """Decodes only, prompts only, both, or one layer group; the GPUs wait for it."""
    free = HostTimes(0, 0, 0, 0)
    plan, context = StepPlan(spans), 5 * decoding
    with_host = model().price(plan, decoding, context)
    without = model(host=free).price(plan, decoding, context)
    assert with_host.duration_ns - without.duration_ns == expected
    assert with_host.wait_ns - without.wait_ns == expected


def grouped(num_layers: int, groups: int, chunk: PrefillChunk) -> list[StepPlan]:
    """A batch that moves through layer groups of equal size."""
    size = num_layers // groups
    plans = []
    for g in range(groups):
        first, last = g * size, (g + 1) * size
        spans = [LayerSpan(first, last, (chunk,))]
        if first:
            spans.insert(0, LayerSpan(0, first))
        if last < num_layers:
            spans.append(LayerSpan(last, num_layers))
        plans.append(StepPlan(tuple(spans)))
    return plans


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_layered_pass_without_decodes_is_the_whole_pass_in_pieces(groups: int) -> None:
    """Alone, a prompt's groups add up to one chunk through all layers.

    Beyond it each extra iteration pays a head and the gather of one row of logits,
    without an embedding.
    """
    chunk = PrefillChunk(0, 0, 36)
    pricer = model((0, 12) * 3, host=HostTimes(0, 0, 0, 0))
    whole = pricer.price(StepPlan((LayerSpan(0, 6, (chunk,)),)), 0, 0)
    parts = [pricer.price(plan, 0, 0) for plan in grouped(6, groups, chunk)]
    extra = groups - 1
    head_ns = Kernels().head(0, 1).ns + Kernels().gather_logits(1).ns
    assert sum(p.duration_ns for p in parts) == whole.duration_ns + extra * head_ns
    assert sum(p.flops for p in parts) == whole.flops + extra * 307
    weights = sum(p.other_weight_bytes for p in parts)
    assert weights == whole.other_weight_bytes + extra * 500_009
    links = sum(p.link_bytes for p in parts)
    assert links == whole.link_bytes + extra * 607
    for name in ("expert_weight_bytes", "kv_bytes", "activation_bytes"):
        assert sum(getattr(p, name) for p in parts) == getattr(whole, name), name


def test_layers_without_prefill_cost_a_decode_iteration() -> None:
    """Layered minus decode-only is what the prompt adds in its own layers alone."""
    chunk, free = PrefillChunk(0, 0, 36), HostTimes(0, 0, 0, 0)
    pricer, kernels = model((0,) * 6, host=free), Kernels()
    decode_only = pricer.price(StepPlan((LayerSpan(0, 6),)), 8, 80)
    layered = pricer.price(grouped(6, 3, chunk)[1], 8, 80)

    def layer_ns(rows: int, graph: bool, touched: float) -> int:
        reduce = kernels.all_reduce(rows, graph=graph).ns
        shared = kernels.linear(rows).ns + kernels.elementwise(rows).ns + 2 * reduce
        return shared + kernels.experts(rows, touched).ns

    added = layer_ns(44, False, 4 + 1 + 36 / 8) - layer_ns(8, True, 4)
    added += kernels.prefill_attention([(0, 36)], windowed=False).ns
    logits = kernels.head(8, 9).ns - kernels.head(8, 8).ns
    logits += kernels.gather_logits(9).ns - kernels.gather_logits(8).ns
    assert layered.duration_ns - decode_only.duration_ns == 2 * added + logits


def test_alternating_windows_are_counted_per_span() -> None:
    """gpt-oss: layers 0, 2, 4 see 12 keys; a group of layers 1-2 holds one of them."""
    windows = (12, 0, 12, 0, 12, 0)
    chunk = PrefillChunk(0, 100, 5)
    spans = (LayerSpan(0, 1), LayerSpan(1, 3, (chunk,)), LayerSpan(3, 6))
    cost = model(windows).price(StepPlan(spans), 2, 60)
    prefill = (100 + 10) + (12 + 10)  # full, windowed: prefix read, chunk twice
    decode = 3 * (60 + 2) + 3 * (24 + 2)
    assert cost.kv_bytes == (prefill + decode) * 503


@QUICK
@given(prefix=st.integers(0, 50), tokens=st.integers(0, 50), window=st.integers(0, 60))
def test_attended_pairs_are_counted(prefix: int, tokens: int, window: int) -> None:
    """Each query sees itself and what precedes it, at most ``window`` keys."""
    brute = sum(
        1
        for query in range(prefix, prefix + tokens)
        for key in range(query + 1)
        if not window or query - key < window
    )
    assert attended_pairs(prefix, tokens, window) == brute


def test_dense_models_read_no_experts() -> None:
    """Without routing, no expert bytes and an expert kernel of zero touched."""
    plan = StepPlan((LayerSpan(0, 4),))
    assert model(dense=True).price(plan, 4, 40).expert_weight_bytes == 0


def test_power_cap_is_applied() -> None:
    """A cap of 1 W on each board over the iteration bounds its energy."""
    pricer = StepCostModel(
        kernels=Kernels(),
        coverage=Routing(),
        work=work((0, 0)),
        host=HOST,
        padded=padded,
        power=replace(POWER, cap_w=1.0),
    )
    cost = pricer.price(StepPlan((LayerSpan(0, 2),)), 4, 40)
    assert cost.energy_j == pytest.approx(2 * 1.0 * cost.duration_ns * 1e-9)


def test_costs_kept_for_one_kind_are_not_taken_for_another() -> None:
    """A chunk in the two dense layers, then in the last two: as many layers each."""
    chunk = (PrefillChunk(0, 0, 9),)
    first = StepPlan((LayerSpan(0, 2, chunk), LayerSpan(2, 6)))
    last = StepPlan((LayerSpan(0, 4), LayerSpan(4, 6, chunk)))
    windows = (0,) * 6
    pricer = model(windows, leading=2)
    for plan in (first, last, first):
        fresh = model(windows, leading=2).price(plan, 5, 50)
        assert pricer.price(plan, 5, 50) == fresh
    assert pricer.price(first, 5, 50) != pricer.price(last, 5, 50)
