"""What is measured: complete, bounded, in an order that any budget can cut."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from calibration.models import model, model_names
from calibration.profiler.cost import seconds, tensor_bytes
from calibration.profiler.grid import (
    Leveled,
    Split,
    doubling,
    full_grid,
    levels_of,
    within_budget,
)
from calibration.profiler.schema import TABLES, KernelRow, csv_bytes, kernel, sort_key
from calibration.profiler.timing import TimingRules
from sim.errors import ConfigError

H100_BYTES = 80 * 10**9
QWEN = "Qwen/Qwen3-30B-A3B"
RULES = TimingRules(energy_window_ns=0)


def grid(
    *names: str, tp: int = 2, ep: int = 1, memory_bytes: int = H100_BYTES
) -> tuple[Leveled, ...]:
    shapes = [model(name) for name in names]
    return full_grid(shapes, Split(tp, ep), memory_bytes, collectives=tp > 1)


def sizes(
    found: tuple[Leveled, ...], table: str, *columns: str
) -> set[tuple[int, ...]]:
    kernels = [k for _, k in found if k.table == table]
    return {tuple(k.size(c) for c in columns) for k in kernels}


def test_axes_double_and_end_where_they_should() -> None:
    """The last size is always measured, power of two or not."""
    assert doubling(512, 24000) == (512, 1024, 2048, 4096, 8192, 16384, 24000)
    assert doubling(8, 8) == (8,)
    assert doubling(8, 7) == ()


def test_levels_halve_the_gaps() -> None:
    """Ends, then the middle, then the quarters; every position has a level."""
    assert levels_of(9) == (0, 3, 2, 3, 1, 3, 2, 3, 0)
    assert (levels_of(1), levels_of(2), levels_of(3)) == ((0,), (0, 0), (0, 1, 0))
    for count in range(3, 40):
        counts = Counter(levels_of(count))
        assert (counts[0], counts[1]) == (2, 1)
        assert sum(counts.values()) == count


def test_qwen_at_two_gpus_has_its_kernels() -> None:
    """Hand-worked: 32 heads, 4 KV heads of 128, hidden 2048, 128 experts of 768, tp 2.

    QKV 16 * 128 + 2 * 2 * 128 = 2560 wide, output 2048 x 2048, router 128, and half of
    the vocabulary of 151,936.
    """
    found = grid(QWEN)
    assert {k.table for _, k in found} == set(TABLES)
    products = {(2560, 2048), (2048, 2048), (128, 2048), (75968, 2048)}
    assert sizes(found, "gemm", "n", "k") == products
    assert sizes(found, "gemm", "m") == {(1 << i,) for i in range(15)}
    heads = ("num_heads", "num_key_value_heads", "head_dim", "window_size")
    for table in ("prefill_attention", "decode_attention"):
        assert sizes(found, table, *heads) == {(16, 2, 128, 0)}
    split = ("inter_size", "moe_tp_size", "moe_ep_size")
    assert sizes(found, "moe", *split) == {(768, 2, 1)}
    ones = sizes(found, "moe", "num_tokens", "touched_experts")
    assert {t for n, t in ones if n == 1} == {8}
    assert {t for n, t in ones if n == 16384} == {8, 16, 32, 64, 128}
    assert (
        max(m for (m,) in sizes(found, "custom_allreduce", "message_size")) == 1 << 23
    )


def test_prefill_has_prefixes_up_to_the_context() -> None:
    """Chunks of 512 after 0, 512, ..., and the longest prefix the model can have."""
    context = model(QWEN).max_position_embeddings
    found = sizes(grid(QWEN), "prefill_attention", "isl", "prefix", "batch_size")
    prefixes = {p for isl, p, batch in found if (isl, batch) == (512, 1)}
    assert {0, 512, 8192, context - 512} <= prefixes
    assert all(isl + prefix <= context for isl, prefix, _ in found)


@pytest.mark.parametrize("name", model_names())
def test_every_catalogue_model_has_a_valid_grid(name: str) -> None:
    """Kernels are unique, fit in memory and are valid rows of the schema."""
    found = grid(name, tp=4)
    kernels = [k for _, k in found]
    assert len(set(kernels)) == len(kernels)
    assert all(tensor_bytes(k) <= H100_BYTES for k in kernels)
    assert csv_bytes(KernelRow(k, 1, None, "x") for k in kernels)
    expected = set(TABLES) - (set() if model(name).is_moe else {"moe"})
    assert {k.table for k in kernels} == expected


def test_windowed_layers_are_measured_apart() -> None:
    """gpt-oss alternates full attention and a window of 128."""
    found = grid("openai/gpt-oss-20b", tp=1)
    for table in ("prefill_attention", "decode_attention"):
        assert sizes(found, table, "window_size") == {(0,), (128,)}


def test_kernels_of_several_models_are_shared() -> None:
    """Once each, in one order, whatever the order of the models."""
    both = grid(QWEN, "Qwen/Qwen3-8B")
    assert both == grid("Qwen/Qwen3-8B", QWEN)
    assert {k for _, k in both} == {
        k for name in (QWEN, "Qwen/Qwen3-8B") for _, k in grid(name)
    }


def test_collectives_need_a_group() -> None:
    """One GPU has nobody to talk to."""
    tables = {k.table for _, k in grid(QWEN, tp=1)}
    assert tables.isdisjoint({"custom_allreduce", "nccl"})


def test_experts_may_be_spread() -> None:
    """Whole experts on each of two ranks."""
    found = grid(QWEN, tp=2, ep=2)
    assert sizes(found, "moe", "moe_tp_size", "moe_ep_size") == {(1, 2)}


def test_a_small_gpu_gets_the_kernels_that_fit() -> None:
    """16 GB: less of decode attention at the far end, never more than fits."""
    small, large = grid(QWEN, memory_bytes=16 * 10**9), grid(QWEN)
    assert all(tensor_bytes(k) <= 0.8 * 16 * 10**9 for _, k in small)
    caches = [
        max(b * s for b, s in sizes(g, "decode_attention", "batch_size", "step"))
        for g in (small, large)
    ]
    assert caches[0] < caches[1]


def test_memory_and_time_of_a_kernel() -> None:
    """A product of 512 x 2048 by 4096: 16 MB of weights, 2 MB in, 4 MB out.

    Time: 0.3 s of set-up, 20 ms of warm-up, 50 ms of runs, timed and then traced.
    """
    product = kernel("gemm", dtype="bfloat16", n=4096, k=2048, m=512)
    assert tensor_bytes(product) == 2 * (4096 * 2048 + 512 * 2048 + 512 * 4096)
    assert seconds(product, RULES) == pytest.approx(0.42)
    with_energy = TimingRules()
    assert seconds(product, with_energy) == pytest.approx(5.42)


def test_a_budget_takes_the_coarsest_kernels_first() -> None:
    """A larger budget only adds; each choice is a prefix and keeps to its budget."""
    found = grid(QWEN)
    levels = [level for level, _ in found]
    assert levels == sorted(levels)
    for (a_level, a), (b_level, b) in pairwise(found):
        assert a_level < b_level or sort_key(a) < sort_key(b)
    choices = [within_budget(found, RULES, s) for s in (60, 120, 400, 1e6)]
    for smaller, larger in pairwise(choices):
        assert len(smaller) < len(larger)
        assert larger[: len(smaller)] == smaller
    assert choices[-1] == tuple(k for _, k in found)
    assert sum(seconds(k, RULES) for k in choices[1]) <= 120
    ends = {k.size("m") for k in choices[0] if k.table == "gemm"}
    assert {1, 16384} <= ends


def test_a_budget_below_the_coarsest_grid_is_refused() -> None:
    """The message names the budget that would do, and that one does."""
    found = grid(QWEN)
    with pytest.raises(
        ConfigError, match=r"--budget-s 1: .* allowed: \d+ or more"
    ) as e:
        within_budget(found, RULES, 1)
    least = int(str(e.value).split("allowed: ")[1].split()[0])
    coarsest = [k for level, k in found if level == 0]
    assert within_budget(found, RULES, least)[: len(coarsest)] == tuple(coarsest)


@pytest.mark.parametrize(
    ("name", "tp", "ep", "message"),
    [
        (QWEN, 3, 1, "--tp 3: must divide the 32 attention heads"),
        (QWEN, 0, 1, "--tp 0: must divide"),
        (QWEN, 4, 2, "--ep 2: allowed: 1 or 4"),
        ("Qwen/Qwen3-8B", 2, 2, "--ep 2: must divide the 0 experts"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(
    name: str, tp: int, ep: int, message: str
) -> None:
    """One line with the option and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        grid(name, tp=tp, ep=ep)
