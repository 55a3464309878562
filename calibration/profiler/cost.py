"""What a kernel would take: memory, so that it fits; time, so that a budget holds.

Planning only, no measurement: an A100 at half of its published peaks, as the slowest
GPU one would profile. A faster GPU is done earlier than estimated.
"""

from __future__ import annotations

from typing import Final

from calibration.hardware import gpu
from calibration.profiler.columns import Kernel
from calibration.profiler.timing import TimingRules
from sim.units import NS_PER_S, s_from_ns

_SLOWEST: Final = "a100_sxm"
_UTILISATION: Final = 0.5
_BF16_BYTES: Final = 2
_GATED_MATRICES: Final = 3
# Allocation, warm-up and capture before a kernel can be timed: a planning figure.
_SETUP_S: Final = 0.3
# Runs beyond the fewest until the interval is narrow enough: a planning figure.
_REPEATS_FACTOR: Final = 4
_TIMERS: Final = 2  # every run by events, and once more traced by CUPTI


def tensor_bytes(kernel: Kernel) -> int:
    """Memory of a kernel's inputs, outputs and intermediates."""
    keys = {c: v for c, v in kernel.keys.items() if isinstance(v, int)}
    if kernel.table == "gemm":
        m, n, k = keys["m"], keys["n"], keys["k"]
        return _BF16_BYTES * (m * k + n * k + m * n)
    if kernel.table == "moe":
        return sum(_moe_bytes(keys, keys["num_experts"]))
    if kernel.table in ("prefill_attention", "decode_attention"):
        new, cached = _lengths(keys)
        width = keys["head_dim"] * _BF16_BYTES * keys["batch_size"]
        kv = 2 * keys["num_key_value_heads"] * (new + cached)
        return width * (kv + 2 * keys["num_heads"] * new)
    return 2 * keys["message_size"]


def seconds(kernel: Kernel, rules: TimingRules) -> float:
    """Estimated time to measure a kernel under these rules."""
    one_ns = _run_ns(kernel)
    timed_ns = max(rules.min_duration_ns, _REPEATS_FACTOR * rules.min_repeats * one_ns)
    timed_ns *= _TIMERS
    total_ns = rules.warmup_ns + timed_ns + rules.energy_window_ns
    return _SETUP_S + s_from_ns(round(total_ns))


def _run_ns(kernel: Kernel) -> float:
    slowest = gpu(_SLOWEST)
    if kernel.table in ("custom_allreduce", "nccl"):
        rate = slowest.nvlink_bandwidth_bytes_per_s
        return 2 * kernel.size("message_size") / (_UTILISATION * rate) * NS_PER_S
    compute = _flops(kernel) / slowest.bf16_flops_per_s
    memory = _moved_bytes(kernel) / slowest.hbm_bandwidth_bytes_per_s
    return max(compute, memory) / _UTILISATION * NS_PER_S


def _moved_bytes(kernel: Kernel) -> int:
    if kernel.table != "moe":
        return tensor_bytes(kernel)
    keys = {c: v for c, v in kernel.keys.items() if isinstance(v, int)}
    return sum(_moe_bytes(keys, keys["touched_experts"]))


def _flops(kernel: Kernel) -> int:
    keys = {c: v for c, v in kernel.keys.items() if isinstance(v, int)}
    if kernel.table == "gemm":
        return 2 * keys["m"] * keys["n"] * keys["k"]
    if kernel.table == "moe":
        width = keys["hidden_size"] * keys["inter_size"] // keys["moe_tp_size"]
        pairs = keys["num_tokens"] * keys["topk"] // keys["moe_ep_size"]
        return 2 * _GATED_MATRICES * width * pairs
    new, cached = _lengths(keys)
    seen = new * cached + new * (new + 1) // 2
    return 4 * keys["batch_size"] * keys["num_heads"] * keys["head_dim"] * seen


def _lengths(keys: dict[str, int]) -> tuple[int, int]:
    """(new, cached) tokens per request."""
    if "step" in keys:
        return 1, keys["step"]
    return keys["isl"], keys["prefix"]


def _moe_bytes(keys: dict[str, int], experts: int) -> tuple[int, int]:
    """Bytes of (the weights of some experts, activations of all pairs) on one rank."""
    inner = keys["inter_size"] // keys["moe_tp_size"]
    local = -(-experts // keys["moe_ep_size"])
    weights = _GATED_MATRICES * keys["hidden_size"] * inner * local
    pairs = keys["num_tokens"] * keys["topk"]
    activations = pairs * (2 * keys["hidden_size"] + _GATED_MATRICES * inner)
    return _BF16_BYTES * weights, _BF16_BYTES * activations
