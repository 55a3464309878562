"""Which rows of which public tables go into the packs, as data.

The shipped versions are those of the newest complete collection per GPU and framework
in aiconfigurator-core 0.12.0, and the vLLM 0.14.0 MoE table of aiconfigurator 0.10.0:
on H100 that one was measured without a tuned Triton configuration for some shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from calibration.table_source import CORE, LEGACY, Shape, TableSource

FRAMEWORKS: Final = ("vllm", "sglang", "trtllm")
DEEPEP: Final = "deepep"
"""Pack of the communication kernels that every framework can use for its experts."""
MOE_TABLES: Final = (
    *("moe", "moe_fp8", "moe_block"),
    *("moe_untuned", "moe_deepseek"),
)
"""The tables of fused experts by synthetic routing, which rooflines are fitted to."""
DEEPEP_TABLES: Final = (
    *("deepep_normal", "deepep_low_latency"),
    *("deepep_normal_nodes", "deepep_low_latency_nodes"),
)

# (hidden size, expert intermediate size, top-k, experts) of the catalogue's MoE models.
MOE_SHAPES: Final[tuple[Shape, ...]] = (
    (2048, 768, 8, 128),  # Qwen3-30B-A3B
    (4096, 1536, 8, 128),  # Qwen3-235B-A22B
    (2880, 2880, 4, 32),  # gpt-oss-20b
    (2880, 2880, 4, 128),  # gpt-oss-120b
    (4096, 14336, 2, 8),  # Mixtral-8x7B
    (6144, 2560, 8, 160),  # Qwen3-Coder-480B-A35B
    (6144, 16384, 2, 8),  # Mixtral-8x22B
    (5120, 8192, 1, 16),  # Llama-4-Scout
    (5120, 8192, 1, 128),  # Llama-4-Maverick
)
# Those of latent attention's models, which come in bfloat16 and block-scaled fp8.
DEEPSEEK_SHAPES: Final[tuple[Shape, ...]] = (
    (7168, 2048, 8, 256),  # V3 and R1
    (7168, 2048, 8, 384),  # Kimi-K2
)

# Catalogue name -> name in the wheel, where they differ.
WHEEL_NAMES: Final[Mapping[str, str]] = {"rtx_pro_6000": "rtx_pro_6000_server"}


@dataclass(frozen=True, slots=True)
class Collection:
    """The public tables that make up one pack.

    Attributes:
        gpu: catalogue name of the GPU.
        framework: "vllm", "sglang", "trtllm" or "deepep".
        version: of the framework, for every table not named in `versions`.
        nccl: version of NCCL, None where there is no such table.
        versions: kind of table ("custom_allreduce", ...) -> version that holds it.
        everything: keep every head and MoE shape, not the catalogue's only.
        fp8_experts: version that experts in fp8 with a scale per tensor are taken from,
            in a table of their own; None: this one.
    """

    gpu: str
    framework: str
    version: str
    nccl: str | None
    versions: Mapping[str, str]
    everything: bool = False
    fp8_experts: str | None = None

    @property
    def pack(self) -> str:
        """Name of the pack: the GPU's, and the framework's unless it is vLLM."""
        return pack_name(self.gpu, self.framework)

    def member(self, family: str, kind: str) -> tuple[str, str]:
        """Path of a table in the wheel, and the version it belongs to."""
        version = self.versions.get(kind, self.version)
        folder = f"{wheel_folder(self.gpu)}/{family}/{self.framework}/{version}"
        return f"{folder}/{kind}_perf.parquet", version


def pack_name(gpu: str, framework: str) -> str:
    """File name, without its ending, of the pack of a GPU and framework."""
    return gpu if framework == "vllm" else f"{gpu}.{framework}"


def wheel_folder(gpu: str) -> str:
    """Folder of a GPU's tables inside the wheel of aiconfigurator-core."""
    return f"aiconfigurator_core/systems/data/{WHEEL_NAMES.get(gpu, gpu)}"


def _shipped() -> Iterator[Collection]:
    # vLLM 0.24.0's fp8 experts on Hopper take 2.2 to 3.8 times as long as bfloat16: an
    # accident, for in its versions 0.14 to 0.19, and in 0.24.0 on every other GPU, they
    # take 0.5 to 0.8 times as long.
    sound = dict.fromkeys(("h100_sxm", "h200_sxm"), "0.19.0")
    for gpu in ("h100_sxm", "h200_sxm", "b200_sxm", "gb200", "rtx_pro_6000"):
        older_fp8 = sound.get(gpu)
        yield Collection(gpu, "vllm", "0.24.0", "2.29.2", {}, fp8_experts=older_fp8)
        yield Collection(gpu, "sglang", "0.5.14", "2.29.2", {})
    older = {"custom_allreduce": "0.22.0"}  # the newest there is
    yield Collection("l40s", "vllm", "0.24.0", "2.27.3", older)
    yield Collection("l40s", "sglang", "0.5.14", "2.27.3", {})
    yield Collection("a100_sxm", "vllm", "0.14.0", "2.27.3", {})
    yield Collection("a100_sxm", "sglang", "0.5.10", "2.27.3", {})
    for gpu in ("h100_sxm", "h200_sxm", "b200_sxm"):
        yield Collection(gpu, "trtllm", "1.3.0rc20", "2.29.2", {})
    # DeepEP as in images of SGLang; several nodes were timed in an older one only, on
    # H100 (the rows of H200 are the same numbers).
    several = {"several_nodes": "0.5.6.post2"}
    yield Collection("h100_sxm", DEEPEP, "0.5.12", None, several)
    yield Collection("h200_sxm", DEEPEP, "0.5.12", None, several)
    yield Collection("b200_sxm", DEEPEP, "0.5.12", None, {})
    yield Collection("gb200", DEEPEP, "0.5.12", None, {})


SHIPPED: Final = tuple(_shipped())


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_HEADS: Final = _same("num_heads", "num_key_value_heads", "head_dim", "window_size")
_DTYPES: Final = {"bfloat16": "bfloat16", "fp8": "fp8"}
# fp8 weights with a scale per 128 x 128 block, as DeepSeek-V3 and the official FP8
# checkpoints of Qwen3 have them.
_BLOCK: Final = {"fp8_block": "fp8"}
_MXFP4: Final = {"w4a16_mxfp4": "mxfp4"}
_MOE_KEYS: Final = {
    "dtype": "moe_dtype",
    **_same("hidden_size", "inter_size", "topk", "num_experts"),
    **_same("moe_tp_size", "moe_ep_size", "distribution", "num_tokens"),
}
_DISTRIBUTIONS: Final = _same("balanced", "power_law_1.01", "power_law_1.2")
_MESSAGE: Final = {"message_size": "message_size"}


def _attention(c: Collection, table: str, kind: str, length: str) -> TableSource:
    member, version = c.member("attention", f"{kind}_attention")
    vllm = c.framework == "vllm"
    keep: dict[str, tuple[int | str, ...]] = {}
    if not c.everything:
        keep |= {"num_key_value_heads": (1, 2, 4, 8, 16, 32), "head_dim": (64, 128)}
        keep |= {"window_size": (0, 128, 8192)}
    if vllm:
        keep |= {"attn_dtype": ("bfloat16",)}
    return TableSource(
        table=table,
        package=CORE,
        member=member,
        version=version,
        keys={"kv_dtype": "kv_cache_dtype", **_HEADS, **_same("batch_size", length)},
        keep=keep,
        rename={"kv_dtype": _DTYPES},
        absent={"window_size": 0},
        # vLLM multiplies in bfloat16; the others compute in fp8 where the GPU can, and
        # not every shape was measured both ways.
        most_rows_of="" if vllm else "attn_dtype",
    )


def _gemm(c: Collection, table: str, dtypes: Mapping[str, str]) -> TableSource:
    member, version = c.member("gemm", "gemm")
    return TableSource(
        table=table,
        package=CORE,
        member=member,
        version=version,
        keys={"dtype": "gemm_dtype", **_same("n", "k", "m")},
        rename={"dtype": dtypes},
        optional=table != "gemm",
    )


def _moe(
    table: str,
    place: tuple[str, str, str],
    dtypes: Mapping[str, str],
    shapes: tuple[Shape, ...],
) -> TableSource:
    package, member, version = place
    odd = "/sglang/0.5.10/" in member
    return TableSource(
        table=table,
        package=package,
        member=member,
        version=version,
        keys=_MOE_KEYS,
        # The EP rows of this collection take two to three times as long as those of
        # every other one.
        keep={"moe_ep_size": (1,)} if odd else {},
        rename={"dtype": dtypes, "distribution": _DISTRIBUTIONS},
        shapes=shapes,
        pure_split=True,
        optional=table in ("moe_deepseek", "moe_block"),
    )


def _older_experts(gpu: str, version: str) -> tuple[str, str, str]:
    """Where the experts of an older vLLM are."""
    folder = f"aiconfigurator/systems/data/{gpu}/vllm/{version}"
    return LEGACY, f"{folder}/moe_perf.parquet", version


def _experts(c: Collection) -> Iterator[TableSource]:
    place = (CORE, *c.member("moe", "moe"))
    # SGLang's fused MoE has the block-scaled kind of fp8 only.
    fp8 = _BLOCK if c.framework == "sglang" else {"fp8": "fp8"}
    dtypes = {"bfloat16": "bfloat16", **fp8, **_MXFP4}
    own = dtypes
    if c.fp8_experts is not None:
        own = {name: packed for name, packed in dtypes.items() if name != "fp8"}
        older = _older_experts(c.gpu, c.fp8_experts)
        yield _moe("moe_fp8", older, {"fp8": "fp8"}, MOE_SHAPES)
    yield _moe("moe", place, own, () if c.everything else MOE_SHAPES)
    if (c.gpu, c.framework) == ("h100_sxm", "vllm") and not c.everything:
        untuned = _older_experts(c.gpu, "0.14.0")
        yield _moe("moe_untuned", untuned, dtypes, MOE_SHAPES)
    if c.framework != "sglang":
        yield _moe("moe_block", place, _BLOCK, MOE_SHAPES)
    deepseek = {"bfloat16": "bfloat16", **_BLOCK}
    yield _moe("moe_deepseek", place, deepseek, DEEPSEEK_SHAPES)


def _all_reduce(c: Collection) -> TableSource:
    member, version = c.member("comm", "custom_allreduce")
    words = {f"{c.framework}_{kind}": kind for kind in ("graph", "eager")}
    return TableSource(
        table="custom_allreduce",
        package=CORE,
        member=member,
        version=version,
        keys={"backend": "backend", "num_gpus": "num_gpus", **_MESSAGE},
        keep={"allreduce_dtype": ("bfloat16",)},
        rename={"backend": words},
        # TensorRT-LLM's table lacks the column; all tables are CUDA-graph timings.
        absent={"backend": f"{c.framework}_graph"},
        message_column="message_size",
    )


def _nccl(c: Collection, version: str) -> TableSource:
    operations = _same("all_gather", "all_reduce", "alltoall", "reduce_scatter")
    return TableSource(
        table="nccl",
        package=CORE,
        member=f"{wheel_folder(c.gpu)}/comm/nccl/{version}/nccl_perf.parquet",
        version=version,
        keys={"op_name": "op_name", "num_gpus": "num_gpus", **_MESSAGE},
        keep={"nccl_dtype": ("half",)},
        rename={"op_name": operations},
        message_column="message_size",
    )


def _mla(c: Collection) -> Iterator[TableSource]:
    """Latent attention: whole modules with their GEMMs, or the bare kernels."""
    formats = {"attn_dtype": "mla_dtype", "kv_dtype": "kv_cache_dtype"}
    words = {"attn_dtype": _DTYPES, "kv_dtype": _DTYPES}
    weights = {"dtype": {"bfloat16": "bfloat16", **_BLOCK}}
    for table, module, kernel, length in (
        ("mla_prefill", "mla_context_module", "context_mla", "isl"),
        ("mla_decode", "mla_generation_module", "generation_mla", "step"),
    ):
        keys = {**formats, **_same("num_heads", "batch_size", length)}
        member, version = c.member("mla", module)
        yield TableSource(
            table=f"{table}_module",
            package=CORE,
            member=member,
            version=version,
            keys={"dtype": "gemm_type", **keys},
            rename={**weights, **words},
            optional=True,
        )
        member, version = c.member("mla", kernel)
        yield TableSource(
            table=table,
            package=CORE,
            member=member,
            version=version,
            keys=keys,
            rename=words,
            optional=True,
        )


def _mla_bmm(c: Collection) -> TableSource:
    """The two batched products that absorb the latent projections in decode."""
    member, version = c.member("mla_bmm", "mla_bmm")
    return TableSource(
        table="mla_bmm",
        package=CORE,
        member=member,
        version=version,
        keys={"dtype": "bmm_dtype", **_same("op_name", "num_heads", "num_tokens")},
        rename={
            "dtype": _DTYPES,
            "op_name": {"mla_gen_pre": "pre", "mla_gen_post": "post"},
        },
        optional=True,
    )


# Of one rank: both run on so many SMs unless told otherwise (Buffer.num_sms of DeepEP).
_DEEPEP_SMS: Final = {"dispatch_sms": (20,)}
_DEEPEP_PHASES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "normal": {
        phase: (f"{phase}_transmit_us", f"{phase}_notify_us")
        for phase in ("dispatch", "combine")
    },
    "ll": {phase: (f"{phase}_avg_t_us",) for phase in ("dispatch", "combine")},
}


def _deepep(c: Collection) -> Iterator[TableSource]:
    """Dispatch and combine, between the GPUs of one node and of several.

    In normal mode the rows of 8 nodes are left out: they take three times as long as
    those of 4 nodes, with up to 8 ms for the notification that takes 0.1 ms there.
    """
    keys = {"phase": "phase", "num_nodes": "node_num"}
    keys |= {**_same("hidden_size"), "topk": "num_topk", **_same("num_experts")}
    several = c.versions.get("several_nodes")
    for mode, table, most in (
        ("normal", "deepep_normal", (2, 4)),
        ("ll", "deepep_low_latency", (2, 4, 8)),
    ):
        sms = _DEEPEP_SMS if mode == "normal" else {}
        for suffix, version, nodes in (
            ("", c.version, (1,)),
            ("_nodes", several, most),
        ):
            if version is None:
                continue
            folder = f"{wheel_folder(c.gpu)}/comm/sglang/{version}"
            yield TableSource(
                table=f"{table}{suffix}",
                package=CORE,
                member=f"{folder}/wideep_deepep_{mode}_perf.parquet",
                version=version,
                keys={**keys, "num_tokens": "num_token"},
                keep={"node_num": nodes, **sms},
                rename={"phase": _same("dispatch", "combine")},
                phases=_DEEPEP_PHASES[mode],
            )


def sources(collection: Collection) -> Iterator[TableSource]:
    """The tables of one pack, in the order they are read."""
    if collection.framework == DEEPEP:
        yield from _deepep(collection)
        return
    yield _attention(collection, "prefill_attention", "context", "isl")
    yield _attention(collection, "decode_attention", "generation", "step")
    yield _gemm(collection, "gemm", _DTYPES)
    yield _gemm(collection, "gemm_block", _BLOCK)
    yield from _experts(collection)
    yield _all_reduce(collection)
    if collection.nccl is not None:
        yield _nccl(collection, collection.nccl)
    yield from _mla(collection)
    yield _mla_bmm(collection)
