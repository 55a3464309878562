"""A model's kernels put together: shapes per GPU, sums, and splits that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calibration.engine_profiles import engine_profile, profile_names
from calibration.hardware import gpu
from calibration.kernels.collectives import Collectives
from calibration.kernels.gemm import Gemms
from calibration.kernels.model_kernels import Deployment, ModelKernels
from calibration.kernels.what_if import MachineScale
from calibration.models import model
from calibration.tables import load_tables
from sim.errors import ConfigError

LAYERS = 48
QWEN = Deployment(
    model=model("Qwen/Qwen3-30B-A3B"), dtype="bfloat16", kv_dtype="bfloat16", tp=2, ep=1
)


def kernels(deployment: Deployment = QWEN, hbm: float = 1.0) -> ModelKernels:
    device = gpu("h100_sxm")
    return ModelKernels(
        tables=load_tables("h100_sxm"),
        gpu=device,
        deployment=deployment,
        profile=engine_profile("vllm-0.24"),
        scale=MachineScale.of(device, "bfloat16", hbm=hbm, compute=1.0, link=1.0),
    )


@pytest.fixture(scope="module")
def qwen() -> ModelKernels:
    return kernels()


@pytest.mark.parametrize("rows", [1, 100, 8192])
def test_linear_is_the_projections_of_one_gpu(qwen: ModelKernels, rows: int) -> None:
    """TP2: 16 query and 2 + 2 KV heads of 128 in, 16 out, and the whole router."""
    gemms = Gemms(load_tables("h100_sxm"), "bfloat16")
    shapes = ((2560, 2048), (2048, 2048), (128, 2048))
    assert qwen.linear(rows).ns == sum(gemms.at(rows, n, k).ns for n, k in shapes)


@pytest.mark.parametrize("rows", [1, 128, 8192])
def test_attention_kept_in_bfloat16_beside_fp8(rows: int) -> None:
    """Llama-3.1-405B-FP8 on 8 GPUs: 16 query and 1 + 1 KV heads, FFN 6656 wide."""
    shape = model("Llama-3.1-405B-Instruct-FP8")
    found = kernels(Deployment(model=shape, dtype="fp8", kv_dtype="fp8", tp=8, ep=1))
    wide, narrow = (Gemms(load_tables("h100_sxm"), d) for d in ("bfloat16", "fp8"))
    attention = ((18 * 128, 16384), (16384, 16 * 128))
    ffn = ((2 * 6656, 16384), (16384, 6656))
    expected = sum(wide.at(rows, n, k).ns for n, k in attention)
    expected += sum(narrow.at(rows, n, k).ns for n, k in ffn)
    assert found.linear(rows).ns == expected
    moved = [
        of for _, of in (*found.projections(rows), *found.ffn(rows, leading=False))
    ]
    weights = [2 * n * k for n, k in attention] + [n * k for n, k in ffn]
    shapes = (*attention, *ffn)
    rest = [rows * (n + k) * 2 for n, k in shapes]
    assert moved == [a + b for a, b in zip(weights, rest, strict=True)]


def test_elementwise_by_hand(qwen: ModelKernels) -> None:
    """Two norms with residual, q/k norm and rotary embedding: 4 x 3 us and bytes.

    Per row 2 x 4 x 2048 x 2 bytes of norms and 2 x 2 x 18 heads x 128 x 2 bytes,
    51 200 in all, at 0.8 of 3.35 TB/s: 19.10 ns.
    """
    assert qwen.elementwise(1000).ns == pytest.approx(4 * 3000 + 19_104, abs=2)


@pytest.mark.parametrize(("rows", "graph"), [(1, True), (1, False), (8192, False)])
def test_all_reduce_sums_hidden_states(
    qwen: ModelKernels, rows: int, graph: bool
) -> None:
    """2048 bfloat16 per row."""
    links = Collectives(load_tables("h100_sxm"), 2, 8_388_608)
    expected = links.all_reduce(rows * 4096, graph=graph)
    assert qwen.all_reduce(rows, graph=graph) == expected


def test_decode_iteration_of_one_request(qwen: ModelKernels) -> None:
    """Kernels at 9194 tokens of context: 4.13 ms published, within 10 %.

    Attention 0.82, experts (8 touched) 1.30, projections 0.90, all-reduce 0.42 and the
    rest 0.70 ms, from the same tables.
    """
    layer = (
        qwen.linear(1).ns
        + qwen.elementwise(1).ns
        + qwen.experts(1, 8.0).ns
        + qwen.decode_attention(1, 9194, windowed=False).ns
        + 2 * qwen.all_reduce(1, graph=True).ns
    )
    total_ms = (LAYERS * layer + qwen.head(1, 1).ns) / 1e6
    assert total_ms == pytest.approx(4.13, rel=0.10)


def test_twice_the_bandwidth_speeds_up_what_memory_bounds(qwen: ModelKernels) -> None:
    """Decode attention halves; a large prefill chunk keeps its time."""
    fast = kernels(hbm=2.0)
    slow_ns = qwen.decode_attention(8, 80_000, windowed=False).ns
    fast_ns = fast.decode_attention(8, 80_000, windowed=False).ns
    assert fast_ns == pytest.approx(slow_ns / 2, abs=1)
    chunk = ((0, 8192),)
    slow_ns = qwen.prefill_attention(chunk, windowed=False).ns
    assert fast.prefill_attention(chunk, windowed=False).ns == slow_ns


def test_dense_models_have_no_experts() -> None:
    """Qwen3-8B: the FFN is in the projections, the expert kernel takes no time."""
    dense = kernels(replace(QWEN, model=model("Qwen/Qwen3-8B")))
    assert dense.experts(100, 0.0) == (0, 0)
    gemms = Gemms(load_tables("h100_sxm"), "bfloat16")
    # 16 + 2 x 4 heads of 128; FFN of 12288 / 2, gate and up together.
    shapes = ((3072, 4096), (4096, 2048), (12288, 4096), (4096, 6144))
    assert dense.linear(64).ns == sum(gemms.at(64, n, k).ns for n, k in shapes)


def test_key_heads_are_copied_beyond_their_number() -> None:
    """4 KV heads over 8 GPUs: each keeps one, and attention is still profiled."""
    wide = kernels(replace(QWEN, tp=8))
    assert wide.decode_attention(1, 1000, windowed=False).ns > 0


@pytest.mark.parametrize(
    ("name", "tp", "ep", "problem"),
    [
        ("Qwen/Qwen3-30B-A3B", 3, 1, "tensor_parallel_size = 3: must divide the 32"),
        ("openai/gpt-oss-20b", 64, 64, "expert_parallel_size = 64: must divide the 32"),
        ("Qwen/Qwen3-8B", 2, 2, "expert_parallel_size = 2: must divide the 0 experts"),
    ],
)
def test_splits_that_do_not_divide_the_model_are_refused(
    name: str, tp: int, ep: int, problem: str
) -> None:
    """One line that names the key, the value and what it must divide."""
    with pytest.raises(ConfigError, match=problem):
        kernels(replace(QWEN, model=model(name), tp=tp, ep=ep))


@pytest.mark.parametrize("name", profile_names())
def test_batches_are_padded_to_the_next_graph(name: str) -> None:
    """Smallest captured size that holds them; beyond the largest, eager as they are."""
    profile = engine_profile(name)
    sizes = profile.graph_rows
    assert list(sizes) == sorted(set(sizes))
    for rows in range(1, sizes[-1] + 1):
        assert profile.padded(rows) == (min(s for s in sizes if s >= rows), True)
    assert profile.padded(sizes[-1] + 1) == (sizes[-1] + 1, False)


@pytest.mark.parametrize("name", ["layered-prefill-v1", "layered-prefill-v2"])
def test_graph_sizes_of_the_layered_prefill_engine(name: str) -> None:
    """As its model runner captures them (scale-snu/layered-prefill 427f441)."""
    captured = [*range(1, 8), *range(8, 15, 2), *range(16, 29, 4), *range(32, 121, 8)]
    captured += [*range(128, 449, 64), 512, 1024]
    assert list(engine_profile(name).graph_rows) == captured
