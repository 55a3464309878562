"""Latent attention: tables reproduced, prefixes, chunks that run as decodes do."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest

from calibration.engine_profiles import engine_profile
from calibration.hardware import gpu as device
from calibration.kernels.dense_gemms import dense_gemms
from calibration.kernels.gemm import Gemms
from calibration.kernels.latent_attention import LatentDecode, LatentPrefill
from calibration.kernels.latent_heads import (
    EVERY_CHUNK,
    LatentHeads,
    absorbed_chunk_tokens,
)
from calibration.kernels.model_kernels import Deployment, ModelKernels
from calibration.kernels.what_if import MachineScale
from calibration.models import model
from calibration.tables import KernelTables, load_tables
from sim.errors import ConfigError
from tests.calibration.kernel_checks import geometric, never_falls, smoothed

R1 = model("deepseek-ai/DeepSeek-R1")
assert R1.latent is not None
HEADS = LatentHeads(
    latent=R1.latent, num_heads=16, dtype="fp8", kv_dtype="bfloat16"
)  # one of eight GPUs


class Kernels(NamedTuple):
    tables: KernelTables
    gemms: Gemms
    prefill: LatentPrefill
    decode: LatentDecode

    def projections_ns(self, rows: int, heads: int) -> int:
        """DeepSeek-V3's products on a GPU with some of its heads, by hand."""
        shapes = ((2112, 7168), (heads * 192, 1536), (7168, heads * 128))
        return sum(self.gemms.at(rows, n, k).ns for n, k in shapes)


@cache
def kernels(gpu: str, framework: str = "vllm", heads: LatentHeads = HEADS) -> Kernels:
    tables = load_tables(gpu, framework=framework)
    gemms = dense_gemms(tables, R1, heads.dtype).gemms
    return Kernels(
        tables,
        gemms,
        LatentPrefill(tables, device(gpu), gemms, heads),
        LatentDecode(tables, device(gpu), gemms, heads),
    )


FORMATS = [("bfloat16", "bfloat16"), ("fp8", "bfloat16"), ("fp8", "fp8")]


@pytest.mark.parametrize("gpu", ["h100_sxm", "h200_sxm", "b200_sxm", "gb200"])
@pytest.mark.parametrize(("dtype", "kv_dtype"), FORMATS)
@pytest.mark.parametrize("num_heads", [8, 16, 128])
def test_prefill_modules_are_reproduced(
    gpu: str, dtype: str, kv_dtype: str, num_heads: int
) -> None:
    """Projections and attention give the module's row again, smoothed over lengths.

    Smoothed apart: lengths that run as decodes do, and those that expand latents.
    """
    heads = replace(HEADS, num_heads=num_heads, dtype=dtype, kv_dtype=kv_dtype)
    found = kernels(gpu, heads=heads)
    keys = {"dtype": dtype, "attn_dtype": "bfloat16", "kv_dtype": kv_dtype}
    rows = found.tables.select("mla_prefill_module", num_heads=num_heads, **keys)
    longest = absorbed_chunk_tokens(found.tables, kv_dtype)
    for batch in sorted(set(rows["batch_size"].tolist())):
        for absorbed in (True, False):
            chosen = (rows["batch_size"] == batch) & (
                (rows["isl"] <= longest) == absorbed
            )
            lengths = rows["isl"][chosen].tolist()
            times = smoothed(rows["latency_ns"][chosen])
            for length, measured in zip(lengths, times, strict=True):
                timed = found.prefill.at(((0, length),) * batch)
                total = found.projections_ns(batch * length, num_heads) + timed.ns
                # All heads of a bfloat16 model on one B200: some are at their floor.
                floored = (gpu, dtype, num_heads) == ("b200_sxm", "bfloat16", 128)
                near = 0.04 if floored else 0
                assert total == pytest.approx(measured, rel=near, abs=3), length


@pytest.mark.parametrize("gpu", ["h100_sxm", "h200_sxm", "b200_sxm", "gb200"])
@pytest.mark.parametrize(("dtype", "kv_dtype"), FORMATS)
@pytest.mark.parametrize("num_heads", [8, 16, 128])
def test_decode_modules_are_reproduced(
    gpu: str, dtype: str, kv_dtype: str, num_heads: int
) -> None:
    """The same for a batch of decodes at equal contexts, the new token included."""
    heads = replace(HEADS, num_heads=num_heads, dtype=dtype, kv_dtype=kv_dtype)
    found = kernels(gpu, heads=heads)
    keys = {"dtype": dtype, "attn_dtype": "bfloat16", "kv_dtype": kv_dtype}
    rows = found.tables.select("mla_decode_module", num_heads=num_heads, **keys)
    for batch in sorted(set(rows["batch_size"].tolist())):
        chosen = rows["batch_size"] == batch
        steps, times = rows["step"][chosen].tolist(), rows["latency_ns"][chosen]
        for step, measured in zip(steps, smoothed(times), strict=True):
            timed = found.decode.at(batch, batch * step)
            assert timed.extrapolated_ns == 0
            total = found.projections_ns(batch, num_heads) + timed.ns
            assert total == pytest.approx(measured, abs=3), step


def absorbing_ns(tables: KernelTables, tokens: int) -> int | None:
    """Both products that absorb the projections of 16 heads, if profiled."""
    keys = {"dtype": "bfloat16", "num_heads": 16, "num_tokens": tokens}
    rows = tables.select("mla_bmm", **keys)
    return int(rows["latency_ns"].sum()) if rows["latency_ns"].size == 2 else None


@pytest.mark.parametrize("gpu", ["h200_sxm", "b200_sxm"])
def test_sglang_kernels_are_reproduced(gpu: str) -> None:
    """Its tables hold bare kernels: absorbing products or expansion come on top."""
    found = kernels(gpu, "sglang")
    keys = {"attn_dtype": "bfloat16", "kv_dtype": "bfloat16", "num_heads": 16}
    rows = found.tables.select("mla_prefill", batch_size=1, **keys)
    lengths, times = rows["isl"].tolist(), smoothed(rows["latency_ns"])
    for length, measured in zip(lengths, times, strict=True):
        other = found.gemms.at(length, 16 * 256, 512).ns
        if gpu == "h200_sxm":
            other = absorbing_ns(found.tables, length)  # type: ignore[assignment]
        if other is not None:
            timed = found.prefill.at(((0, length),))
            assert timed.ns - other == pytest.approx(measured, abs=3)
    rows = found.tables.select("mla_decode", batch_size=64, **keys)
    absorbing = absorbing_ns(found.tables, 64)
    assert absorbing is not None
    steps, times = rows["step"].tolist(), smoothed(rows["latency_ns"])
    for step, measured in zip(steps, times, strict=True):
        timed = found.decode.at(64, 64 * (step + 1))
        assert timed.ns - absorbing == pytest.approx(measured, abs=3)


@pytest.mark.parametrize("length", [16, 128, 512, 2048, 8192, 16384])
def test_two_engines_agree_on_b200(length: int) -> None:
    """vLLM's whole module against the sum of SGLang's kernels: independent timings.

    B200 is where both were timed as they are served; on Hopper vLLM's modules contain
    norms of the collector, which are slower (README, limits).
    """
    module = kernels("b200_sxm")
    parts = kernels("b200_sxm", "sglang")
    chunk = ((0, length),)
    whole_ns = module.projections_ns(length, 16) + module.prefill.at(chunk).ns
    sum_ns = parts.projections_ns(length, 16) + parts.prefill.at(chunk).ns
    assert sum_ns == pytest.approx(whole_ns, rel=0.15)


@pytest.mark.parametrize("gpu", ["h200_sxm", "b200_sxm"])
@pytest.mark.parametrize("tokens", [256, 512, 513, 2048])
def test_a_longer_prefix_takes_longer(gpu: str, tokens: int) -> None:
    found = kernels(gpu)
    prefixes = [0, *geometric(1, 100_000)]
    assert never_falls(lambda p: found.prefill.at(((p, tokens),)), prefixes)


def test_chunks_of_one_prompt_cost_more_than_the_prompt() -> None:
    """Each expands the latents of its prefix again; the pairs are the same."""
    found = kernels("b200_sxm")
    whole = found.prefill.at(((0, 8192),)).ns
    for chunk in (2048, 1024):
        parts = [
            found.prefill.at(((start, chunk),)).ns for start in range(0, 8192, chunk)
        ]
        assert sum(parts) > whole
        expansions = sum(
            found.gemms.at(start + chunk, 16 * 256, 512).ns
            for start in range(0, 8192, chunk)
        )
        assert sum(parts) > expansions


def test_a_prefix_is_attended_to_at_the_rate_of_a_long_prompt() -> None:
    """2048 tokens after 14,336 against the last 2048 tokens of a prompt of 16,384.

    The whole prompt less the first 14,336 tokens: the same pairs. A chunk has fewer
    blocks to fill the GPU with, launches its own kernels and expands the prefix again.
    """
    for gpu in ("h200_sxm", "b200_sxm"):
        found = kernels(gpu)
        chunk = found.prefill.at(((14_336, 2048),)).ns
        last = found.prefill.at(((0, 16_384),)).ns - found.prefill.at(((0, 14_336),)).ns
        prefix = found.gemms.at(14_336, 16 * 256, 512).ns
        assert 0.8 * last < chunk < 2 * last + 2 * prefix


@pytest.mark.parametrize(
    ("gpu", "framework", "kv_dtype", "tokens"),
    [
        ("h100_sxm", "vllm", "bfloat16", 512),
        ("h200_sxm", "vllm", "fp8", 128),
        ("b200_sxm", "vllm", "bfloat16", 1),
        ("b200_sxm", "sglang", "bfloat16", 0),
        ("h200_sxm", "sglang", "bfloat16", EVERY_CHUNK),
    ],
)
def test_chunks_that_run_as_decodes_do(
    gpu: str, framework: str, kv_dtype: str, tokens: int
) -> None:
    """FLASH_ATTN_MLA and FLASHMLA on Hopper; only single tokens elsewhere in vLLM."""
    tables = load_tables(gpu, framework=framework)
    assert absorbed_chunk_tokens(tables, kv_dtype) == tokens


def test_work_of_absorbed_and_expanded_chunks_by_hand() -> None:
    """16 heads: FLOPs of pairs, and of expanding prefix and chunk."""
    prefill = kernels("h200_sxm").prefill
    pairs = 1000 * 500 + 500 * 501 // 2
    absorbed = prefill.work(((1000, 500),))
    assert absorbed.flops == pairs * 16 * 2 * 1088
    assert absorbed.hbm_bytes == 500 * 16 * 1088 * 2 + 1500 * 576 * 2
    pairs = 1000 * 600 + 600 * 601 // 2
    expanded = prefill.work(((1000, 600),))
    assert expanded.flops == pairs * 16 * 2 * 320 + 1600 * 16 * 2 * 512 * 256
    moved = (600 + 1600) * 16 * 320 * 2 + 1600 * (16 * 256 + 512) * 2
    assert expanded.hbm_bytes == moved
    decode = kernels("h200_sxm").decode.work(8, 9000)
    assert decode.flops == 9000 * 16 * 2 * 1088
    assert decode.hbm_bytes == 8 * 16 * 1088 * 2 + 9000 * 576 * 2


def test_groups_of_chunks_add_up() -> None:
    """Short chunks that run as decodes do, and long ones, are two kernels."""
    prefill = kernels("h200_sxm").prefill
    short, long = ((3000, 100), (500, 100)), ((2000, 1000),)
    both = prefill.at((*short, *long))
    assert both.ns == prefill.at(short).ns + prefill.at(long).ns


def test_what_lies_outside_the_tables_is_extrapolated() -> None:
    """Longer prompts, larger batches and contexts, heads and widths not profiled."""
    found = kernels("h200_sxm")
    assert found.prefill.at(((0, 32_768),)).extrapolated_ns == 0
    beyond = found.prefill.at(((0, 40_000),))
    assert 0 < beyond.extrapolated_ns <= beyond.ns
    assert found.decode.at(1, 131_072).extrapolated_ns == 0
    for batch, context in ((1, 200_000), (2000, 2_000_000), (1024, 1024 * 100_000)):
        timed = found.decode.at(batch, context)
        assert timed.extrapolated_ns == timed.ns > 0
    for heads in (
        replace(HEADS, num_heads=12),
        replace(HEADS, latent=replace(HEADS.latent, rope_dim=32)),
    ):
        timed = kernels("h200_sxm", heads=heads).decode.at(8, 9000)
        assert timed.extrapolated_ns == timed.ns > 0


def test_other_widths_scale_with_bytes_and_flops() -> None:
    """Decode of few heads reads the cache: a cache of half the width, half the time."""
    half = replace(HEADS.latent, kv_lora_rank=256, rope_dim=32)
    narrow = kernels("h200_sxm", heads=replace(HEADS, latent=half)).decode.at(
        64, 640_000
    )
    full = kernels("h200_sxm").decode.at(64, 640_000)
    assert narrow.ns == pytest.approx(full.ns / 2, abs=1)
    twelve = kernels("h200_sxm", heads=replace(HEADS, num_heads=12)).prefill
    assert (
        twelve.at(((0, 16_384),)).ns < kernels("h200_sxm").prefill.at(((0, 16_384),)).ns
    )


def test_decode_grows_with_batch_and_context() -> None:
    decode = kernels("b200_sxm").decode
    for batch in (1, 16, 256):
        assert never_falls(
            lambda c, b=batch: decode.at(b, b * c), geometric(2, 131_072)
        )
    times = [decode.at(b, b * 8192).ns for b in (1, 4, 16, 64, 128)]
    assert all(a < b for a, b in pairwise(times))


@pytest.mark.parametrize("num_heads", [16, 12])
def test_many_contexts_at_once_are_the_same(num_heads: int) -> None:
    """To the nanosecond, inside the table and beyond, profiled heads or not."""
    decode = kernels("h200_sxm", heads=replace(HEADS, num_heads=num_heads)).decode
    for batch in (1, 37, 3000):
        contexts = batch * np.arange(1, 200_000, 997)
        ns, outside = decode.many(batch, contexts)
        moved, flops = decode.work_many(batch, contexts)
        for i, context in enumerate(contexts.tolist()):
            timed = decode.at(batch, context)
            assert (int(ns[i]), bool(outside[i])) == (
                timed.ns,
                timed.extrapolated_ns > 0,
            )
            work = decode.work(batch, context)
            assert (moved[i], flops[i]) == (work.hbm_bytes, work.flops)


def served(
    gpu: str, framework: str = "vllm", dtype: str = "fp8", **changes: object
) -> ModelKernels:
    deployment = Deployment(model=R1, dtype=dtype, kv_dtype="bfloat16", tp=8, ep=1)
    profile = {"vllm": "vllm-0.24", "sglang": "sglang-0.5"}[framework]
    machine = device(gpu)
    return ModelKernels(
        tables=load_tables(gpu, framework=framework),
        gpu=machine,
        deployment=replace(deployment, **changes),  # type: ignore[arg-type]
        profile=engine_profile(profile),
        scale=MachineScale.of(machine, "bfloat16", hbm=1.0, compute=1.0, link=1.0),
    )


def test_rows_of_prompts_and_decodes_share_their_projections() -> None:
    """One product of 612 rows, not one of 512 and one of 100."""
    found = served("h200_sxm")
    gemms = kernels("h200_sxm").gemms
    shapes = ((2112, 7168), (3072, 1536), (7168, 2048))
    shapes += ((256, 7168), (512, 7168), (7168, 256))
    assert found.linear(612).ns == sum(gemms.at(612, n, k).ns for n, k in shapes)
    dense = (*shapes[:3], (4608, 7168), (7168, 2304))
    expected = sum(gemms.at(612, n, k).ns for n, k in dense)
    assert found.linear(612, leading=True).ns == expected


def test_block_scaled_products_are_those_a_graph_replays() -> None:
    """vLLM's table holds launches from Python: 390 us for a row on GB200.

    The whole module of four such products takes less than one of them.
    """
    tables = load_tables("gb200")
    launched = Gemms(tables, "fp8", block=True).at(1, 2112, 7168).ns
    module = (
        kernels("gb200").projections_ns(1, 16) + kernels("gb200").decode.at(1, 2).ns
    )
    assert launched > 2 * module
    source = dense_gemms(tables, R1, "fp8")
    assert source.tables.pack == "gb200.sglang"
    assert source.gemms.at(1, 2112, 7168).ns < module / 2
    both = [pack.pack for pack in served("gb200", tp=4).packs]
    assert both == ["gb200", "gb200.sglang"]
    own = served("b200_sxm", "sglang").packs
    assert [pack.pack for pack in own] == ["b200_sxm.sglang"]


def test_experts_are_those_of_deepseek() -> None:
    """A row of the table at its own routing: within the correction for coverage."""
    rows = load_tables("h200_sxm").select(
        "moe_deepseek",
        **{"dtype": "fp8", "distribution": "power_law_1.2", "num_tokens": 4096},
        moe_tp_size=8,
        moe_ep_size=1,
    )
    timed = served("h200_sxm").experts(4096, 256.0)
    assert timed.extrapolated_ns == 0
    assert timed.ns == pytest.approx(int(rows["latency_ns"][0]), rel=0.05)


@pytest.mark.parametrize(
    ("gpu", "framework", "changes", "problem"),
    [
        ("a100_sxm", "vllm", {"dtype": "bfloat16"}, r"a100_sxm: no kernel of latent"),
        ("a100_sxm", "sglang", {"dtype": "bfloat16"}, r"\(MLA\).* with sglang$"),
        ("l40s", "vllm", {"kv_dtype": "fp8"}, r"for fp8 weights and a fp8 KV cache$"),
        ("rtx_pro_6000", "vllm", {}, r"no prefill kernel of latent attention"),
        ("h200_sxm", "vllm", {"tp": 3}, r"tensor_parallel_size = 3: must divide"),
        ("h200_sxm", "vllm", {"tp": 256}, r"tensor_parallel_size = 256: must divide"),
    ],
)
def test_what_was_not_profiled_is_refused(
    gpu: str, framework: str, changes: dict[str, object], problem: str
) -> None:
    """One line that names the GPU and what is missing."""
    with pytest.raises(ConfigError, match=problem) as refused:
        served(gpu, framework, **changes)
    assert "\n" not in str(refused.value)
