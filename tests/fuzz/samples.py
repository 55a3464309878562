"""One small valid input of each kind, for the fuzzers to damage."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from calibration.import_csv import import_csv
from calibration.pack_set import write_set
from calibration.profiler.schema import KernelRow, csv_bytes, kernel
from calibration.roofline_set import ROOFLINES

TRACE = (
    b"arrived_at,num_prefill_tokens,num_decode_tokens,note\n"
    b"0,5,6,a\n0.5,7,8,b\n0.5,100,1,\n2.25,1,20,c\n"
)
OUTAGES = (
    b"replica,kind,start_s,end_s,note\n"
    b"0,failure,0,6,a\n1,drain,7.5,8,b\n0,drain,100,1e3,\n"
)
MOONCAKE: tuple[dict[str, Any], ...] = (
    {"timestamp": 0, "input_length": 5, "output_length": 6, "hash_ids": [7]},
    {"timestamp": 27.5, "input_length": 513, "output_length": 8, "hash_ids": [7, 1]},
    {"timestamp": 3000, "input_length": 1024, "output_length": 1, "hash_ids": [2, 3]},
)
SERVING_SIM = (
    b"request_id,input_tokens,output_tokens,queued_s,first_token_s,last_token_s\n"
    b"b,20,1,0.5,0.7,0.7\na,10,3,0.1,0.2,0.6\nc,5,2,0.7,0.8,0.9\n"
)
LLM_D = (
    b"scenario,qps,arrival_s,input_tokens,output_tokens,ttft_s,generation_s\n"
    b"chat,4.0,0.0,689,275,0.125,8.22\nchat,4.0,0.25,543,2,0.25,0.5\n"
    b"code,8.0,0.0,689,275,0.5,8.22\n"
)
STEPS = (
    b"decoding,context_tokens,prefill_tokens,prefix_tokens,measured_ms\n"
    b"1,100,0,0,6.5\n8,8000,0,0,7.0\n0,0,512,0,20\n8,8000,512,1024,22.5\n"
)
ANCHOR = (
    b'base = "vllm-0.24"\nkernel_factor = 1.1\nhost_factor = 0.9\n'
    b'fitted_to = "4 steps"\nleave_one_out_error = 0.02\n'
)
MODEL: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_act": "silu",
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 512,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "sliding_window": None,
    "layer_types": ["full_attention"] * 4,
}
MOE_MODEL: dict[str, Any] = {
    **{k: v for k, v in MODEL.items() if k != "intermediate_size"},
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
}
_SHARES = [[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25]]
_PAIRS = [[0, 1, 3], [2, 3, 1]]
ROUTING: dict[str, Any] = {
    "stats.json": {
        "num_layers": 2,
        "num_experts": 4,
        "top_k": 2,
        "domain": "code",
        "load": _SHARES,
        "transition": [[[1 / 16] * 4] * 4],
        "coactivation": [[[1 / 12] * 4] * 4] * 2,
    },
    "sglang.json": {"logical_count": [[[4, 2, 1, 1], [2, 2, 2, 2]]] * 2},
    "coactivation.json": {
        "k": 2,
        "layers": [
            {"heat": [4, 2, 1, 1], "pairs": _PAIRS},
            {"heat": [2, 2, 2, 2], "pairs": _PAIRS},
        ],
    },
    "exflow.csv": b"l0,l1,l2\n0,1,2\n1,1,0\n3,2,1\n",
    "eplb.log": b"INFO EPLB avg_tokens=8.0, max_tokens=10, balancedness=0.8\n" * 3,
    "load.npz": {"load": _SHARES, "top_k": 2},
    "routed.npz": {"routed": [[[0, 1], [2, 3]], [[1, 2], [0, 3]]]},
}
SPLIT = {"moe_tp_size": 1, "moe_ep_size": 1}


def kernel_rows() -> list[KernelRow]:
    """Kernels enough to simulate both models on one GPU."""
    heads = {"kv_dtype": "bfloat16", "num_heads": 8, "num_key_value_heads": 2}
    heads |= {"head_dim": 64, "window_size": 0}
    shape = {"hidden_size": 256, "inter_size": 128, "topk": 2, "num_experts": 8}
    kernels = [
        kernel("gemm", dtype="bfloat16", n=n, k=256, m=m)
        for n in (256, 1024)
        for m in (1, 16, 256)
    ]
    kernels += [
        kernel("prefill_attention", **heads, batch_size=batch, isl=isl, prefix=0)
        for batch in (1, 2)
        for isl in (16, 256, 2048)
    ]
    kernels += [
        kernel("decode_attention", **heads, batch_size=batch, step=step)
        for batch in (1, 8)
        for step in (16, 512)
    ]
    kernels += [
        kernel(
            *("moe",),
            **{"dtype": "bfloat16", **shape, **SPLIT},
            distribution="power_law_1.2",
            num_tokens=tokens,
            touched_experts=0,
        )
        for tokens in (1, 8, 64)
    ]
    return [KernelRow(k, 5000 + 10 * i, None, "x") for i, k in enumerate(kernels)]


def kernels_csv() -> bytes:
    """The same as a file."""
    return csv_bytes(kernel_rows())


def rooflines() -> dict[str, Any]:
    """Fits of the experts above, as the importer writes them."""
    fit = {"t0_ns": 100.0, "bytes_per_ns": 2e3, "flops_per_ns": 1e5, "q": 2.0}
    fit |= {"activation_bytes_per_ns": 1e3, "tile": 16, "fit_error": 0.1}
    return {
        "slices": {"h100_sxm/moe/bfloat16/256-128-2-8-1-1": fit},
        "loads": {
            "tokens": [1.0, 8.0, 64.0],
            "8-2-1-16": [[2.0, 7.0, 8.0], [32.0, 112.0, 160.0], [2.0, 16.0, 128.0]],
        },
    }


@cache
def calibration_set() -> dict[str, bytes]:
    """The files of a calibration set of the kernels above."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "kernels.csv"
        source.write_bytes(kernels_csv())
        pack = import_csv(source, "h100_sxm", "vllm")
        extra = {ROOFLINES: json.dumps(rooflines()).encode()}
        write_set(folder / "set", [pack], extra=extra)
        return {p.name: p.read_bytes() for p in (folder / "set").iterdir()}
