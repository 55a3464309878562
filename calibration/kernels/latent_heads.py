"""Latent attention as one GPU of a group sees it, and as the tables profile it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from calibration.latent_shape import LatentShape
from calibration.tables import KernelTables

PROFILED: Final = LatentShape(
    q_lora_rank=1536, kv_lora_rank=512, nope_dim=128, rope_dim=64, value_dim=128
)
"""The shape of every profiled row, DeepSeek-V3's ..."""
PROFILED_HIDDEN: Final = 7168
"""... and its hidden size."""

EVERY_CHUNK: Final = 2**31
"""Longer than any prompt."""

# `reorder_batch_threshold` of the backends vLLM 0.24 picks on Hopper: FLASH_ATTN_MLA
# for a bfloat16 cache and FLASHMLA for an fp8 one (vllm/v1/attention/backends/mla/).
# The `kernel_source` of the public rows changes at the same lengths.
_VLLM_ON_HOPPER: Final = MappingProxyType({"bfloat16": 512, "fp8": 128})
# The public rows of SGLang's FlashAttention-3 kernel do the FLOPs of absorbed
# attention: at 16,384 tokens that is 0.6 of the peak, counted expanded it is 0.2. The
# engine itself expands prompts without a prefix, so that long ones are served faster.
_SGLANG_ON_HOPPER: Final = MappingProxyType(
    {"bfloat16": EVERY_CHUNK, "fp8": EVERY_CHUNK}
)
_ABSORBED_CHUNK_TOKENS: Final[Mapping[tuple[str, str], Mapping[str, int]]] = (
    MappingProxyType(
        {
            ("vllm", "h100_sxm"): _VLLM_ON_HOPPER,
            ("vllm", "h200_sxm"): _VLLM_ON_HOPPER,
            ("sglang", "h100_sxm"): _SGLANG_ON_HOPPER,
            ("sglang", "h200_sxm"): _SGLANG_ON_HOPPER,
        }
    )
)
_KV_BYTES: Final = MappingProxyType({"bfloat16": 2, "fp8": 1})
_ACTIVATION_BYTES: Final = 2


def absorbed_chunk_tokens(tables: KernelTables, kv_dtype: str) -> int:
    """Longest chunk of a prompt whose kernel attends to the latents themselves.

    Where nothing else is known, vLLM takes a chunk of a single token for a decode.
    """
    known = _ABSORBED_CHUNK_TOKENS.get((tables.framework, tables.gpu))
    if known is not None:
        return known[kv_dtype]
    return int(tables.framework == "vllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentHeads:
    """Latent attention of one layer on one GPU of a tensor-parallel group.

    Attributes:
        latent: Its widths.
        num_heads: Query heads on this GPU.
        dtype: Format of the projections, "bfloat16" or "fp8".
        kv_dtype: Format of the cache, "bfloat16" or "fp8".
    """

    latent: LatentShape
    num_heads: int
    dtype: str
    kv_dtype: str

    @property
    def cache_bytes(self) -> int:
        """Bytes of one token in the cache, the same on every GPU."""
        return self.latent.cache_width * _KV_BYTES[self.kv_dtype]

    def absorbed(
        self, queries: float, keys: float, pairs: float
    ) -> tuple[float, float]:
        """(HBM bytes, FLOPs) of attention to latents."""
        latent, heads = self.latent, self.num_heads
        row = heads * (latent.cache_width + latent.kv_lora_rank) * _ACTIVATION_BYTES
        return (
            queries * row + keys * self.cache_bytes,
            pairs * heads * latent.absorbed_pair_flops,
        )

    def expanded(
        self, queries: float, keys: float, pairs: float
    ) -> tuple[float, float]:
        """(HBM bytes, FLOPs) of attention to expanded keys and values."""
        latent, heads = self.latent, self.num_heads
        row = heads * (latent.query_dim + latent.value_dim) * _ACTIVATION_BYTES
        return (queries + keys) * row, pairs * heads * latent.expanded_pair_flops
