"""Attention over cached keys: flash-attn where it is installed, else torch's own.

Both attend causally with the last query at the last key, so a chunk sees its whole
prefix. Keys and values lie contiguous per request (no pages), already rotated.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from calibration.profiler.kernel_parts import Bench, Built, Keys, optional

_FLASH: Final = "flash_attn"
_WITHOUT_LIMIT: Final = -1  # flash-attn's spelling of an unlimited window


def prefill(keys: Keys, bench: Bench) -> Built:
    """Attention of `isl` new tokens after `prefix` cached ones, per request.

    The result is [batch_size, isl, num_heads, head_dim].
    """
    new, prefix = int(keys["isl"]), int(keys["prefix"])
    q, k, v = _tensors(keys, bench, new, prefix + new)
    flash = optional(_FLASH)
    if flash is None:
        return _sdpa(bench, q, k, v, int(keys["window_size"]))
    batch, cumulative = int(keys["batch_size"]), _cumulative(bench)
    rows_q, rows_kv = cumulative(batch, new), cumulative(batch, prefix + new)
    flat = [x.flatten(0, 1) for x in (q, k, v)]

    def run() -> Any:
        out = flash.flash_attn_varlen_func(
            *flat,
            cu_seqlens_q=rows_q,
            cu_seqlens_k=rows_kv,
            max_seqlen_q=new,
            max_seqlen_k=prefix + new,
            causal=True,
            window_size=_flash_window(keys),
        )
        return out.unflatten(0, (batch, new))

    return Built(run, "flash_attn_varlen_func")


def decode(keys: Keys, bench: Bench) -> Built:
    """Attention of one new token per request over `step` cached ones and itself.

    The result is [batch_size, 1, num_heads, head_dim]. flash-attn also writes the new
    token's keys and values into the cache, as an engine does.
    """
    step, window = int(keys["step"]), int(keys["window_size"])
    flash = optional(_FLASH)
    if flash is None:
        seen = min(step + 1, window) if window else step + 1
        return _sdpa(bench, *_tensors(keys, bench, 1, seen), window=0)
    q, k, v = _tensors(keys, bench, 1, step + 1)
    fresh_k, fresh_v = k[:, -1:].clone(), v[:, -1:].clone()
    lengths = bench.torch.full(
        (q.shape[0],), step, dtype=bench.torch.int32, device=bench.device
    )

    def run() -> Any:
        return flash.flash_attn_with_kvcache(
            q,
            k,
            v,
            k=fresh_k,
            v=fresh_v,
            cache_seqlens=lengths,
            causal=True,
            window_size=_flash_window(keys),
        )

    return Built(run, "flash_attn_with_kvcache")


def _sdpa(bench: Bench, q: Any, k: Any, v: Any, window: int) -> Built:
    attention = bench.torch.nn.functional.scaled_dot_product_attention
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    source = "torch.scaled_dot_product_attention"
    mask: Any = None
    if window:
        mask, source = _window_mask(bench, q, k, window), f"{source}(mask)"
    elif 1 < q.shape[2] < k.shape[2]:
        bias = importlib.import_module("torch.nn.attention.bias")
        mask = bias.causal_lower_right(q.shape[2], k.shape[2])
        source = f"{source}(causal_lower_right)"
    causal = mask is None and q.shape[2] > 1

    def run() -> Any:
        out = attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)
        return out.transpose(1, 2)

    return Built(run, source)


def _window_mask(bench: Bench, q: Any, k: Any, window: int) -> Any:
    """True where a query sees a key: at most `window` keys, itself the last."""
    torch, new, total = bench.torch, q.shape[2], k.shape[2]
    at = torch.arange(total - new, total, device=bench.device).unsqueeze(1)
    key = torch.arange(total, device=bench.device)
    return (key <= at) & (key > at - window)


def _tensors(keys: Keys, bench: Bench, new: int, total: int) -> tuple[Any, Any, Any]:
    """Queries, keys and values as [batch, length, heads, head_dim]."""
    batch, width = int(keys["batch_size"]), int(keys["head_dim"])
    kv_heads = int(keys["num_key_value_heads"])
    return (
        bench.normal(batch, new, int(keys["num_heads"]), width),
        bench.normal(batch, total, kv_heads, width),
        bench.normal(batch, total, kv_heads, width),
    )


def _cumulative(bench: Bench) -> Any:
    """Function of (requests, length) that gives the start row of each request."""

    def starts(requests: int, length: int) -> Any:
        stop = requests * length + 1
        torch = bench.torch
        return torch.arange(0, stop, length, dtype=torch.int32, device=bench.device)

    return starts


def _flash_window(keys: Keys) -> tuple[int, int]:
    window = int(keys["window_size"])
    return (window - 1, 0) if window else (_WITHOUT_LIMIT, _WITHOUT_LIMIT)
