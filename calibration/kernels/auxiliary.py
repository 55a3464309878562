"""What a fused MoE layer does beside its grouped GEMMs, for comparison with traces."""

from __future__ import annotations

from calibration.hardware import Gpu
from calibration.model_shape import ModelShape

_KERNELS = 5
"""Top-k softmax, two alignment kernels, activation, weighted sum of expert outputs."""
_ACTIVATION_BYTES = 2


def moe_auxiliary_ns(gpu: Gpu, model: ModelShape, rows: int, tp: int) -> int:
    """Time of the memory-bound kernels inside one profiled MoE row, analytic.

    A constant per kernel plus bytes at a share of HBM bandwidth: gate and up in and
    product out per pair, expert outputs in and their sum out per row.
    """
    pairs = rows * model.top_k
    inner = 3 * model.moe_intermediate_size // tp
    elements = pairs * (inner + model.hidden_size) + rows * model.hidden_size
    rate = gpu.elementwise_bandwidth_fraction * gpu.hbm_bandwidth_bytes_per_s / 1e9
    constant = _KERNELS * gpu.elementwise_latency_us * 1e3
    return round(constant + elements * _ACTIVATION_BYTES / rate)
