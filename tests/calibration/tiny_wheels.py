"""Wheels of a few rows, written by the tests themselves."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calibration.pack_sources import DEEPEP_TABLES, SHIPPED, Collection, sources
from calibration.table_source import CORE, TableSource
from tests.calibration.parquet import parquet_bytes

CORE_WHEEL = "aiconfigurator_core-0.12.0-cp311-abi3-any.whl"
LEGACY_WHEEL = "aiconfigurator-0.10.0-cp310-abi3-any.whl"

HEADER = {
    "framework": "VLLM",
    "device": "some GPU",
    "kernel_source": "a_kernel",
    "latency": 0.0123456,
}
ATTENTION = {
    **{"num_heads": 4, "num_key_value_heads": 1, "head_dim": 128, "window_size": 0},
    **{"attn_dtype": "bfloat16", "kv_cache_dtype": "fp8", "batch_size": 2},
    **{"isl": 16, "step": 7},
}
MOE = {
    **{"moe_dtype": "bfloat16", "num_tokens": 8, "hidden_size": 2048},
    **{"inter_size": 768, "topk": 8, "num_experts": 128, "moe_tp_size": 2},
    **{"moe_ep_size": 1, "distribution": "balanced"},
}
# Both phases of both modes; low latency has times without parts.
DEEPEP: dict[str, Any] = {
    **{"node_num": 1, "hidden_size": 2048, "num_token": 4, "num_topk": 8},
    **{"num_experts": 128, "dispatch_transmit_us": 20.0, "dispatch_notify_us": 5.0},
    **{"combine_transmit_us": 30.0, "combine_notify_us": 1.0},
    **{"dispatch_avg_t_us": 10.0, "combine_avg_t_us": 11.0},
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "prefill_attention": [ATTENTION, {**ATTENTION, "head_dim": 192}],
    "decode_attention": [ATTENTION, {**ATTENTION, "window_size": 4096}],
    "gemm": [
        {"gemm_dtype": "bfloat16", "m": 2, "n": 64, "k": 32, "latency": 0.003},
        {"gemm_dtype": "bfloat16", "m": 1, "n": 64, "k": 32, "latency": 0.001},
        {"gemm_dtype": "bfloat16", "m": 1, "n": 64, "k": 32, "latency": 0.005},
        {"gemm_dtype": "bfloat16", "m": 1, "n": 64, "k": 32, "latency": 0.002},
        {"gemm_dtype": "bfloat16", "m": 4, "n": 64, "k": 32, "latency": np.nan},
        {"gemm_dtype": "bfloat16", "m": 5, "n": 64, "k": 32, "latency": 0.0},
        {"gemm_dtype": "bfloat16", "m": 6, "n": 64, "k": 32, "version": "0.1"},
        {"gemm_dtype": "nvfp4", "m": 1, "n": 64, "k": 32},
        {"gemm_dtype": "fp8_block", "m": 1, "n": 64, "k": 32, "latency": 0.004},
    ],
    "moe": [
        MOE,
        {**MOE, "hidden_size": 3000},
        {**MOE, "moe_dtype": "w4a16_mxfp4"},
        {**MOE, "moe_tp_size": 2, "moe_ep_size": 2},
        {**MOE, "moe_dtype": "fp8"},
        {**MOE, "moe_dtype": "fp8_block", "hidden_size": 7168, "inter_size": 2048}
        | {"num_experts": 256},
    ],
    "custom_allreduce": [
        {"allreduce_dtype": "bfloat16", "num_gpus": 2, "message_size": size}
        | {"backend": f"{framework}_{kind}"}
        for size in (128, 256)
        for framework in ("vllm", "sglang")
        for kind in ("graph", "eager")
    ],
    "deepep_normal": [
        {**DEEPEP, "dispatch_sms": sms, "combine_sms": sms} for sms in (20, 24)
    ],
    "deepep_low_latency": [DEEPEP],
    "nccl": [
        {"nccl_dtype": dtype, "num_gpus": 2, "message_size": 256}
        | {"op_name": "all_reduce"}
        for dtype in ("half", "int8")
    ],
}

MLA: dict[str, Any] = {
    **{"mla_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "num_heads": 16},
    **{"batch_size": 2, "isl": 16, "step": 8, "gemm_type": "fp8_block"},
}
MLA_ROWS: dict[str, list[dict[str, Any]]] = {
    "mla_prefill_module": [MLA, {**MLA, "gemm_type": "nvfp4"}],
    "mla_decode_module": [MLA],
    "mla_bmm": [
        {"bmm_dtype": "bfloat16", "op_name": name, "num_heads": 16, "num_tokens": 4}
        for name in ("mla_gen_pre", "mla_gen_post")
    ],
}
SAME_FILE = {
    **{"moe_untuned": "moe", "moe_fp8": "moe", "moe_deepseek": "moe"},
    "gemm_block": "gemm",
    "deepep_normal_nodes": "deepep_normal",
    "deepep_low_latency_nodes": "deepep_low_latency",
}

Change = Callable[[str, pd.DataFrame], pd.DataFrame]


def unchanged(_table: str, frame: pd.DataFrame) -> pd.DataFrame:
    return frame


def _frame(source: TableSource, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The source's table; TensorRT-LLM's all-reduce does not name the launch."""
    header = {**HEADER, "version": source.version}
    frame = pd.DataFrame([{**header, **row} for row in rows])
    if source.table in DEEPEP_TABLES:
        frame = frame.assign(node_num=source.keep["node_num"][0])
        return frame.drop(columns="latency")
    if "/trtllm/" not in source.member or "backend" not in frame:
        return frame
    return frame.drop(columns="backend").drop_duplicates()


def write_wheels(folder: Path, change: Change = unchanged) -> tuple[Path, Path]:
    paths = folder / CORE_WHEEL, folder / LEGACY_WHEEL
    with zipfile.ZipFile(paths[0], "w") as core, zipfile.ZipFile(paths[1], "w") as old:
        for source in (source for pack in SHIPPED for source in sources(pack)):
            table = SAME_FILE.get(source.table, source.table)
            wheel = core if source.package == CORE else old
            if table not in ROWS or source.member in wheel.namelist():
                continue
            frame = change(table, _frame(source, ROWS[table]))
            wheel.writestr(source.member, parquet_bytes(frame))
    return paths


def one_wheel(
    path: Path,
    collections: Iterable[Collection],
    rows: Mapping[str, list[dict[str, Any]]],
) -> Path:
    """A wheel of aiconfigurator-core with a RECORD, holding the tables of `rows`."""
    record = ""
    with zipfile.ZipFile(path, "w") as wheel:
        for source in (s for c in collections for s in sources(c)):
            table = SAME_FILE.get(source.table, source.table)
            known = table not in rows or source.member in wheel.namelist()
            if known or source.package != CORE:
                continue
            header = {**HEADER, "version": source.version}
            frame = pd.DataFrame([{**header, **r} for r in rows[table]])
            content = parquet_bytes(frame)
            wheel.writestr(source.member, content)
            digest = hashlib.sha256(content).digest()
            word = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            record += f"{source.member},sha256={word},{len(content)}\n"
        wheel.writestr("aiconfigurator_core-0.12.0.dist-info/RECORD", record)
    return path
