"""Roofline of a fused MoE layer, fitted per profiled slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from calibration.model_shape import BITS_PER_WEIGHT

BYTES_PER_EXPERT_WEIGHT: Mapping[str, float] = MappingProxyType(
    {dtype: bits / 8 for dtype, bits in BITS_PER_WEIGHT.items()}
)
"""Bytes per expert weight, scales included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeRoofline:
    """Time of the hottest rank from what it reads and computes.

        t = t0 + ((memory * W / bw)^q + (compute * F / peak)^q)^(1/q) + A / activation

    W: weight bytes of touched experts, F: FLOPs of tile-padded pairs, A: activation
    bytes. ``memory`` and ``compute`` are an engine's inefficiency against the tables
    (1.0 for a stock engine).

    Attributes:
        t0_ns: Fixed time.
        bytes_per_ns: Effective weight bandwidth.
        flops_per_ns: Effective FLOP rate.
        q: Sharpness of the transition between the two bounds.
        activation_bytes_per_ns: Effective bandwidth of activations.
        tile: Rows per tile of the grouped GEMM.
        fit_error: Mean absolute relative error of the fit on its slice.
    """

    t0_ns: float
    bytes_per_ns: float
    flops_per_ns: float
    q: float
    activation_bytes_per_ns: float
    tile: int
    fit_error: float

    def at(
        self,
        weight_bytes: float,
        flops: float,
        activation_bytes: float,
        *,
        memory: float = 1.0,
        compute: float = 1.0,
    ) -> float:
        """Time in nanoseconds."""
        weights = memory * weight_bytes / self.bytes_per_ns
        arithmetic = compute * flops / self.flops_per_ns
        bound: float = (weights**self.q + arithmetic**self.q) ** (1.0 / self.q)
        return self.t0_ns + bound + activation_bytes / self.activation_bytes_per_ns

    def at_many(
        self,
        weight_bytes: npt.NDArray[np.float64],
        flops: npt.NDArray[np.float64],
        activation_bytes: npt.NDArray[np.float64],
        *,
        memory: float,
        compute: float,
    ) -> npt.NDArray[np.float64]:
        """What :meth:`at` gives, for arrays."""
        weights = memory * weight_bytes / self.bytes_per_ns
        arithmetic = compute * flops / self.flops_per_ns
        bound = (weights**self.q + arithmetic**self.q) ** (1.0 / self.q)
        times: npt.NDArray[np.float64] = (
            self.t0_ns + bound + activation_bytes / self.activation_bytes_per_ns
        )
        return times


@dataclass(frozen=True, slots=True)
class MoeSlice:
    """One (shape, split) of a model's routed experts; fields as in the tables."""

    hidden_size: int
    inter_size: int
    topk: int
    num_experts: int
    moe_tp_size: int
    moe_ep_size: int

    @property
    def numbers(self) -> tuple[int, ...]:
        """The fields in order, as a key."""
        return (
            self.hidden_size,
            self.inter_size,
            self.topk,
            self.num_experts,
            self.moe_tp_size,
            self.moe_ep_size,
        )

    def weight_bytes(self, touched: float, bytes_per_weight: float) -> float:
        """HBM bytes of ``touched`` experts' weights on one rank."""
        per_expert = 3 * self.hidden_size * self.inter_size / self.moe_tp_size
        return touched * per_expert * bytes_per_weight

    def flops(self, pairs: float) -> float:
        """FLOPs of ``pairs`` token-expert pairs on one rank."""
        return pairs * 6 * self.hidden_size * self.inter_size / self.moe_tp_size

    def activation_bytes(self, pairs: float) -> float:
        """Bytes of inputs, intermediates (gate, up, product) and outputs of pairs."""
        inner = 3 * self.inter_size / self.moe_tp_size
        return pairs * 2 * (2 * self.hidden_size + inner)
