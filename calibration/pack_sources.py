"""Which rows of which public tables go into the packs, as data.

The versions are those of the newest complete vLLM collection per GPU in
aiconfigurator-core 0.12.0, and the vLLM 0.14.0 MoE table of aiconfigurator 0.10.0: on
H100 that one was measured without a tuned Triton configuration for some shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

CORE: Final = "aiconfigurator-core"
LEGACY: Final = "aiconfigurator"
PACKAGE_VERSIONS: Final[Mapping[str, str]] = {CORE: "0.12.0", LEGACY: "0.10.0"}
LICENCE: Final = "Apache-2.0"

VLLM_VERSIONS: Final[Mapping[str, str]] = {
    "h100_sxm": "0.24.0",
    "h200_sxm": "0.24.0",
    "a100_sxm": "0.14.0",
    "b200_sxm": "0.24.0",
}
NCCL_VERSIONS: Final[Mapping[str, str]] = {
    "h100_sxm": "2.29.2",
    "h200_sxm": "2.29.2",
    "a100_sxm": "2.27.3",
    "b200_sxm": "2.29.2",
}
GPUS: Final = tuple(VLLM_VERSIONS)

# (hidden size, expert intermediate size, top-k, experts) of the catalogue's MoE models.
MOE_SHAPES: Final = (
    (2048, 768, 8, 128),  # Qwen3-30B-A3B
    (4096, 1536, 8, 128),  # Qwen3-235B-A22B
    (2880, 2880, 4, 32),  # gpt-oss-20b
    (2880, 2880, 4, 128),  # gpt-oss-120b
    (4096, 14336, 2, 8),  # Mixtral-8x7B
)
# Both communication benchmarks name a message by its number of 16-bit elements: in the
# NCCL table a size N of "half" takes the time of a size 2N of "int8".
BYTES_PER_ELEMENT: Final = 2


@dataclass(frozen=True, slots=True)
class TableSource:
    """One packed table and the parquet member it is cut from.

    Attributes:
        table: name of the packed table.
        package: distribution whose wheel holds the member.
        member: path of the parquet file inside the wheel.
        version: value of the member's `version` column to keep.
        keys: packed column -> source column, in sorting order.
        keep: source column -> values to keep.
        rename: packed column -> {source string: packed string}; other strings go.
        absent: source column -> value where an older file lacks the column.
        shapes: MoE shapes to keep, all if empty.
        message_column: packed column to turn from elements into bytes, if any.
    """

    table: str
    package: str
    member: str
    version: str
    keys: Mapping[str, str]
    keep: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    rename: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    absent: Mapping[str, int] = field(default_factory=dict)
    shapes: tuple[tuple[int, int, int, int], ...] = ()
    message_column: str = ""


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_HEADS: Final = _same("num_heads", "num_key_value_heads", "head_dim", "window_size")
_DTYPES: Final = {"bfloat16": "bfloat16", "fp8": "fp8"}
_MOE_KEYS: Final = {
    "dtype": "moe_dtype",
    **_same("hidden_size", "inter_size", "topk", "num_experts"),
    **_same("moe_tp_size", "moe_ep_size", "distribution", "num_tokens"),
}
_DISTRIBUTIONS: Final = _same("balanced", "power_law_1.01", "power_law_1.2")


def _attention(gpu: str, table: str, source: str, length: str) -> TableSource:
    version = VLLM_VERSIONS[gpu]
    return TableSource(
        table=table,
        package=CORE,
        member=f"{_core(gpu)}/attention/vllm/{version}/{source}_attention_perf.parquet",
        version=version,
        keys={"kv_dtype": "kv_cache_dtype", **_HEADS, **_same("batch_size", length)},
        keep={
            "num_key_value_heads": (1, 2, 4, 8),
            "head_dim": (64, 128),
            "window_size": (0, 128),
            "attn_dtype": ("bfloat16",),
        },
        rename={"kv_dtype": _DTYPES},
        absent={"window_size": 0},
    )


def _gemm(gpu: str) -> TableSource:
    version = VLLM_VERSIONS[gpu]
    return TableSource(
        table="gemm",
        package=CORE,
        member=f"{_core(gpu)}/gemm/vllm/{version}/gemm_perf.parquet",
        version=version,
        keys={"dtype": "gemm_dtype", **_same("n", "k", "m")},
        rename={"dtype": _DTYPES},
    )


def _moe(table: str, package: str, member: str, version: str) -> TableSource:
    return TableSource(
        table=table,
        package=package,
        member=member,
        version=version,
        keys=_MOE_KEYS,
        rename={
            "dtype": {**_DTYPES, "w4a16_mxfp4": "mxfp4"},
            "distribution": _DISTRIBUTIONS,
        },
        shapes=MOE_SHAPES,
    )


def _all_reduce(gpu: str) -> TableSource:
    version = VLLM_VERSIONS[gpu]
    return TableSource(
        table="custom_allreduce",
        package=CORE,
        member=f"{_core(gpu)}/comm/vllm/{version}/custom_allreduce_perf.parquet",
        version=version,
        keys={"backend": "backend", "num_gpus": "num_gpus", **_MESSAGE},
        keep={"allreduce_dtype": ("bfloat16",)},
        rename={"backend": {"vllm_graph": "graph", "vllm_eager": "eager"}},
        message_column="message_size",
    )


def _nccl(gpu: str) -> TableSource:
    version = NCCL_VERSIONS[gpu]
    operations = _same("all_gather", "all_reduce", "alltoall", "reduce_scatter")
    return TableSource(
        table="nccl",
        package=CORE,
        member=f"{_core(gpu)}/comm/nccl/{version}/nccl_perf.parquet",
        version=version,
        keys={"op_name": "op_name", "num_gpus": "num_gpus", **_MESSAGE},
        keep={"nccl_dtype": ("half",)},
        rename={"op_name": operations},
        message_column="message_size",
    )


_MESSAGE: Final = {"message_size": "message_size"}


def _core(gpu: str) -> str:
    return f"aiconfigurator_core/systems/data/{gpu}"


def sources(gpu: str) -> Iterator[TableSource]:
    """The tables of one GPU's pack, in the order they are read."""
    yield _attention(gpu, "prefill_attention", "context", "isl")
    yield _attention(gpu, "decode_attention", "generation", "step")
    yield _gemm(gpu)
    version = VLLM_VERSIONS[gpu]
    yield _moe(
        "moe", CORE, f"{_core(gpu)}/moe/vllm/{version}/moe_perf.parquet", version
    )
    if gpu == "h100_sxm":
        legacy = "aiconfigurator/systems/data/h100_sxm/vllm/0.14.0/moe_perf.parquet"
        yield _moe("moe_untuned", LEGACY, legacy, "0.14.0")
    yield _all_reduce(gpu)
    yield _nccl(gpu)
