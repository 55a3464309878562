"""Which kernels of which catalogue model are profiled on which GPU."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest

from calibration.hardware import gpu as device
from calibration.hardware import gpu_names
from calibration.models import ModelShape, model, model_names
from calibration.pack_set import read_provenance
from calibration.tables import DATA_DIR, KernelTables, load_tables
from sim.build import build_machine
from sim.config_file import load_config
from sim.errors import ConfigError
from sim.plan import LayerSpan, StepPlan

# DeepSeek's kernels have tables, and tests, of their own.
MODELS = tuple(name for name in model_names() if model(name).latent is None)
GPT_OSS = tuple(name for name in MODELS if "gpt-oss" in name)
NOT_ON_A100 = (*GPT_OSS, *(name for name in MODELS if "Llama-4" in name))
PACKED = {(p["gpu"], p["framework"]) for p in read_provenance(DATA_DIR).values()}
MOE = tuple(name for name in MODELS if model(name).is_moe)
PROFILED = [
    (gpu, name)
    for gpu in gpu_names()
    for name in MODELS
    if not (gpu == "a100_sxm" and name in NOT_ON_A100)
]
# Whose query heads per GPU nobody profiled: they run as the nearest ones, by heads.
BORROWED = {"Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-405B"}
BORROWED_ON_A100 = BORROWED | {
    *("Qwen/Qwen3-14B", "Qwen/Qwen3-Coder-480B-A35B-Instruct", "Qwen/Qwen2.5-32B"),
    "mistralai/Mixtral-8x22B-v0.1",
}
# More of them per GPU are reckoned from batches of 8 (test_attention.py).
MOST_KV_HEADS = 8
BOTH_DISTRIBUTIONS = {"power_law_1.01", "power_law_1.2"}


def fits(gpu: str, shape: ModelShape, dtype: str, num_gpus: int = 8) -> bool:
    """Whether the weights leave a sixth of the memory of some GPUs."""
    weights = shape.weight_bytes(dtype).total
    return weights < num_gpus * device(gpu).hbm_bytes * 5 / 6


@cache
def tables(gpu: str) -> KernelTables:
    return load_tables(gpu)


def attention_rows(
    found: KernelTables,
    table: str,
    shape: ModelShape,
    tp: int,
    window: int,
    kv_dtype: str,
) -> tuple[int, float]:
    """Rows of the nearest number of query heads, and that number over the model's."""
    rows = found.select(
        table,
        kv_dtype=kv_dtype,
        num_key_value_heads=max(shape.num_kv_heads // tp, 1),
        head_dim=shape.head_dim,
        window_size=window,
    )
    if not rows["latency_ns"].size:
        return 0, 1.0
    ratios = rows["num_heads"] * tp / shape.num_heads
    nearest = ratios[np.argmin(np.abs(np.log(ratios)))]
    return int((ratios == nearest).sum()), float(nearest)


def table_of(found: KernelTables, dtype: str) -> str:
    """Where experts of a format are, block-scaled ones apart."""
    return "moe_fp8" if dtype == "fp8" and "moe_fp8" in found.names else "moe"


def moe_splits(
    gpu: str, shape: ModelShape, dtype: str
) -> dict[tuple[int, int], set[str]]:
    """(TP, EP) -> routing distributions profiled."""
    rows = tables(gpu).select(
        table_of(tables(gpu), dtype),
        dtype=dtype,
        hidden_size=shape.hidden_size,
        inter_size=shape.moe_intermediate_size,
        topk=shape.top_k,
        num_experts=shape.num_experts,
    )
    splits: dict[tuple[int, int], set[str]] = {}
    keys = zip(
        rows["moe_tp_size"].tolist(),
        rows["moe_ep_size"].tolist(),
        rows["distribution"].tolist(),
        strict=True,
    )
    for tp, ep, distribution in keys:
        splits.setdefault((tp, ep), set()).add(distribution)
    return splits


@pytest.mark.parametrize(("gpu", "name"), PROFILED)
@pytest.mark.parametrize("table", ["prefill_attention", "decode_attention"])
def test_attention_of_every_model_is_profiled(gpu: str, name: str, table: str) -> None:
    """TP 1 to 8 that hold the weights, every window; fp8 KV except on A100."""
    shape = model(name)
    kv_dtypes = ["bfloat16"] if gpu == "a100_sxm" else ["bfloat16", "fp8"]
    nearest = []
    for tp in (1, 2, 4, 8):
        if shape.num_kv_heads // tp > MOST_KV_HEADS or not fits(gpu, shape, "fp8", tp):
            continue
        for window in set(shape.layer_windows):
            for kv_dtype in kv_dtypes:
                found, ratio = attention_rows(
                    tables(gpu), table, shape, tp, window, kv_dtype
                )
                assert found > 100, (tp, window, kv_dtype)
                nearest.append(ratio)
    borrowed = BORROWED_ON_A100 if gpu == "a100_sxm" else BORROWED
    assert set(nearest) <= {1.0} or name in borrowed
    assert all(3 / 4 <= ratio <= 4 / 3 for ratio in nearest)


@pytest.mark.parametrize(
    ("gpu", "name"), [(gpu, name) for gpu, name in PROFILED if name in MOE]
)
def test_experts_of_every_moe_model_are_profiled(gpu: str, name: str) -> None:
    """Native format and, where it runs, fp8; TP1, TP2 and EP2, EP4, real routing.

    Of models that eight GPUs can hold in that format; experts of Llama 4 in fp8 were
    not timed on Hopper in the version those are from.
    """
    dtypes = ["mxfp4"] if name in GPT_OSS else ["bfloat16", "fp8"]
    if gpu == "a100_sxm":
        dtypes = ["bfloat16"]
    if "Llama-4" in name and "moe_fp8" in tables(gpu).names:
        dtypes.remove("fp8")
    for dtype in (d for d in dtypes if fits(gpu, model(name), d)):
        splits = moe_splits(gpu, model(name), dtype)
        for split in ((1, 1), (2, 1), (1, 2), (1, 4)):
            assert splits[split] >= BOTH_DISTRIBUTIONS, (dtype, split)


@pytest.mark.parametrize("name", NOT_ON_A100)
def test_gpt_oss_and_llama_4_are_absent_on_a100(name: str) -> None:
    """Neither their experts nor their attention were profiled there.

    That is a head_dim of 64, and windows of 8192.
    """
    shape = model(name)
    assert moe_splits("a100_sxm", shape, shape.native_dtype) == {}
    for table in ("prefill_attention", "decode_attention"):
        for window in (0, 128) if name in GPT_OSS else (8192,):
            rows = attention_rows(
                tables("a100_sxm"), table, shape, 1, window, "bfloat16"
            )
            assert rows[0] == 0


def test_dense_products_are_profiled_in_the_formats_the_gpu_runs() -> None:
    for gpu in gpu_names():
        assert len(tables(gpu).select("gemm", dtype="bfloat16")["m"]) > 8_000
        fp8 = len(tables(gpu).select("gemm", dtype="fp8")["m"])
        assert (fp8 == 0) == (gpu == "a100_sxm")


@pytest.mark.parametrize("framework", ["vllm", "sglang"])
@pytest.mark.parametrize("gpu", gpu_names())
def test_collectives_of_every_group_are_profiled(gpu: str, framework: str) -> None:
    """23 sizes of the custom all-reduce, 21 of each NCCL collective, for every group
    that fits a node."""
    found = load_tables(gpu, framework=framework)
    for num_gpus in (2, 4, 8) if device(gpu).gpus_per_node == 8 else (2, 4):
        for backend in ("graph", "eager"):
            rows = found.select("custom_allreduce", backend=backend, num_gpus=num_gpus)
            assert rows["message_size"].tolist() == [2**n for n in range(8, 31)]
        for operation in ("all_gather", "all_reduce", "alltoall", "reduce_scatter"):
            rows = found.select("nccl", op_name=operation, num_gpus=num_gpus)
            assert rows["message_size"].tolist() == [2**n for n in range(9, 30)]


@pytest.mark.parametrize("gpu", gpu_names())
def test_sglang_kernels_of_every_model_are_profiled(gpu: str) -> None:
    """Attention of all head shapes in bfloat16, experts and dense products."""
    found = load_tables(gpu, framework="sglang")
    for name in MODELS:
        shape = model(name)
        if gpu == "a100_sxm" and name in NOT_ON_A100:
            continue
        tp = max(shape.num_kv_heads // MOST_KV_HEADS, 1)
        for table in ("prefill_attention", "decode_attention"):
            count, ratio = attention_rows(
                found, table, shape, tp, max(shape.layer_windows), "bfloat16"
            )
            assert count > 90, (name, table)
            assert 3 / 4 <= ratio <= 4 / 3, (name, table)
        if shape.is_moe:
            rows = found.select(
                "moe",
                dtype="mxfp4" if name in GPT_OSS else "bfloat16",
                hidden_size=shape.hidden_size,
                num_experts=shape.num_experts,
                inter_size=shape.moe_intermediate_size,
                distribution="power_law_1.2",
                moe_tp_size=1,
                moe_ep_size=1,
            )
            assert len(rows["num_tokens"]) > 20, name
    assert len(found.select("gemm", dtype="bfloat16")["m"]) > 30_000


TRTLLM = ("h100_sxm", "h200_sxm", "b200_sxm")


@pytest.mark.parametrize("gpu", TRTLLM)
@pytest.mark.parametrize("name", MODELS)
def test_tensorrt_llm_serves_every_model(gpu: str, name: str) -> None:
    """A decode batch of 16 on 8 GPUs, experts split by tensor and by expert; less than
    a tenth is extrapolated, but for gpt-oss, whose experts were timed in EP only.

    In fp8 where nothing wider fits, and on 4 GPUs where 8 do not divide the heads. An
    eighth of an expert of Qwen3-Coder-480B, 320 wide, is no multiple of the 128 that
    its fp8 scales are for, and was timed nowhere.
    """
    shape = model(name)
    tp = 4 if shape.num_heads % 8 else 8
    dtype = shape.native_dtype if fits(gpu, shape, shape.native_dtype) else "fp8"
    cut = name in GPT_OSS or (
        dtype == "fp8" and shape.moe_intermediate_size // tp % 128
    )
    for ep in (1, tp) if shape.is_moe else (1,):
        flags: dict[str, object] = {
            **{"calibration.profile": "trtllm-1.3", "cluster.gpu": gpu},
            **{"cluster.gpus_per_node": 8, "model.name": name},
            "model.dtype": dtype,
            "parallel.tensor_parallel_size": tp,
            "parallel.expert_parallel_size": ep,
        }
        machine = build_machine(load_config(None, (), flags))
        plan = StepPlan((LayerSpan(0, shape.num_layers),))
        cost = machine.pricer.price(plan, 16, 16 * 2048)
        outside = cost.extrapolated_ns / cost.duration_ns
        assert (outside < 0.1) != bool(cut and ep == 1)


def test_a_gpu_without_tensorrt_llm_tables_says_how_to_get_them() -> None:
    """Of A100 the public ones are of 1.0.0; they are not shipped under another name."""
    missing = set(gpu_names()) - set(TRTLLM)
    assert "a100_sxm" in missing
    for gpu in missing:
        command = f"calibrate import WHEEL --gpu {gpu} --backend trtllm"
        with pytest.raises(ConfigError, match=command):
            load_tables(gpu, framework="trtllm")


def test_tensorrt_llm_tables_say_where_they_come_from() -> None:
    """Version 1.3.0rc20 in every table but NCCL's, with hashes and a licence."""
    for gpu in TRTLLM:
        for table, entry in load_tables(gpu, framework="trtllm").provenance.items():
            version = "2.29.2" if table == "nccl" else "1.3.0rc20"
            assert entry["framework_version"] == version
            assert entry["licence"] == "Apache-2.0"
            assert len(entry["member_sha256"]) == len(entry["wheel_sha256"]) == 64


def test_shipped_calibration_is_small() -> None:
    """12 MB in all, and no file of 2 MB."""
    sizes = [path.stat().st_size for path in DATA_DIR.iterdir()]
    assert sum(sizes) < 12e6
    assert max(sizes) < 2e6


# What the public tables lack, so that a gap is a known one.
NO_MLA = {"a100_sxm"}
NO_DEEPSEEK_EXPERTS = {"rtx_pro_6000", "l40s.sglang"}


@pytest.mark.parametrize("framework", ["vllm", "sglang"])
@pytest.mark.parametrize("gpu", gpu_names())
def test_deepseek_kernels_are_profiled(gpu: str, framework: str) -> None:
    """Latent attention of 128 heads down to 16, and experts (7168, 2048, 8 of 256 as
    in V3, or of 384 as in Kimi-K2)."""
    found = load_tables(gpu, framework=framework)
    suffix = "_module" if framework == "vllm" else ""
    for table in (f"mla_prefill{suffix}", f"mla_decode{suffix}"):
        assert (table in found.names) == (gpu not in NO_MLA)
        if table in found.names:
            dtype = {"dtype": "bfloat16"} if suffix else {}
            for heads in (128, 64, 32, 16):
                rows = found.select(
                    table,
                    kv_dtype="bfloat16",
                    attn_dtype="bfloat16",
                    num_heads=heads,
                    **dtype,
                )
                assert len(rows["latency_ns"]) > 90
    assert ("moe_deepseek" in found.names) == (found.pack not in NO_DEEPSEEK_EXPERTS)
    if "moe_deepseek" in found.names:
        dtype = "bfloat16" if gpu == "a100_sxm" else "fp8"
        rows = found.columns("moe_deepseek")
        shape = ("hidden_size", "inter_size", "topk", "num_experts")
        sizes = [set(rows[c].tolist()) for c in shape]
        assert sizes == [{7168}, {2048}, {8}, {256, 384}]
        assert set(rows["dtype"].tolist()) == {dtype}
        assert {1, 8} <= set(rows["moe_tp_size"].tolist())


def test_latent_attention_grows_with_its_work() -> None:
    """Decode of 64 requests: four times the context, more time but not five times."""
    found = load_tables("h100_sxm").select(
        "mla_decode_module",
        **{"dtype": "fp8", "attn_dtype": "bfloat16", "kv_dtype": "bfloat16"},
        num_heads=128,
        batch_size=64,
    )
    times = dict(zip(found["step"].tolist(), found["latency_ns"].tolist(), strict=True))
    assert times[8192] < times[32768] < 5 * times[8192]


def test_experts_with_ep_of_an_anomalous_collection_are_left_out() -> None:
    """SGLang 0.5.10 on A100: tensor-parallel rows only."""
    columns = load_tables("a100_sxm", framework="sglang").columns("moe")
    assert set(columns["moe_ep_size"].tolist()) == {1}


@pytest.mark.parametrize("gpu_name", ["h100_sxm", "h200_sxm", "b200_sxm"])
def test_block_scaled_experts_of_the_qwen3_models_are_profiled(gpu_name: str) -> None:
    """Their official fp8 checkpoints are block-scaled; they take less than bfloat16."""
    tables = load_tables(gpu_name)
    keys = {
        "hidden_size": 4096,
        "moe_tp_size": 1,
        "moe_ep_size": 4,
        "distribution": "power_law_1.2",
        "num_tokens": 16,
        "dtype": "fp8",
    }
    block = tables.select("moe_block", inter_size=1536, **keys)["latency_ns"]
    assert block.size == 1
    wide = {**keys, "dtype": "bfloat16"}
    assert block[0] < tables.select("moe", inter_size=1536, **wide)["latency_ns"][0]


@pytest.mark.parametrize("framework", ["vllm", "trtllm"])
@pytest.mark.parametrize("gpu", gpu_names())
def test_experts_of_half_the_bytes_take_less_time(gpu: str, framework: str) -> None:
    """Reading weights takes most of it, or multiplying: both are cheaper in fp8.

    The median row in 0.4 to 0.9 of the time of bfloat16.
    """
    if (gpu, framework) not in PACKED:
        pytest.skip(f"no {framework} pack of {gpu}")
    found = load_tables(gpu, framework=framework)
    wide, narrow = (
        by_row(found.select(table_of(found, dtype), dtype=dtype))
        for dtype in ("bfloat16", "fp8")
    )
    ratios = [narrow[row] / wide[row] for row in wide.keys() & narrow.keys()]
    assert bool(ratios) == (gpu != "a100_sxm")
    assert not ratios or 0.4 < np.median(ratios) < 0.9


def by_row(rows: Mapping[str, Any]) -> dict[tuple[int, ...], float]:
    """Latency by tokens, slice and distribution."""
    keys = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts")
    split = ("moe_tp_size", "moe_ep_size", "distribution")
    columns = [rows[key].tolist() for key in (*keys, *split)]
    return dict(zip(zip(*columns, strict=True), rows["latency_ns"], strict=True))
