"""What-if machines: profiled times moved to other bandwidths and peaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.hardware import Gpu
from sim.kernel_times import Timed

Integer = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Work:
    """What a kernel has to move and compute."""

    hbm_bytes: float
    flops: float


@dataclass(frozen=True, slots=True)
class MachineScale:
    """Factors on a GPU's HBM bandwidth, FLOP rate and links.

    A kernel keeps its efficiency: its time changes by the ratio of the rooflines
    max(bytes / bandwidth, FLOPs / peak) of the scaled and the profiled machine.

    Attributes:
        bandwidth_bytes_per_s: HBM bandwidth of the profiled machine.
        peak_flops_per_s: Peak of the profiled machine for the model's weights.
        hbm: Factor on HBM bandwidth.
        compute: Factor on the FLOP rate.
        link: Factor on link bandwidth.
    """

    bandwidth_bytes_per_s: float
    peak_flops_per_s: float
    hbm: float = 1.0
    compute: float = 1.0
    link: float = 1.0

    @classmethod
    def of(
        cls, gpu: Gpu, dtype: str, *, hbm: float, compute: float, link: float
    ) -> MachineScale:
        """Factors against ``gpu`` for a weight format."""
        return cls(gpu.hbm_bandwidth_bytes_per_s, gpu.flops(dtype), hbm, compute, link)

    @property
    def unchanged(self) -> bool:
        """Whether kernel times are those of the profiled machine."""
        return self.hbm == 1.0 and self.compute == 1.0

    def apply(self, timed: Timed, *, hbm_bytes: float, flops: float) -> Timed:
        """The kernel's time on the scaled machine."""
        if self.unchanged:
            return timed
        memory = hbm_bytes / self.bandwidth_bytes_per_s
        arithmetic = flops / self.peak_flops_per_s
        ratio = max(memory / self.hbm, arithmetic / self.compute) / max(
            memory, arithmetic
        )
        return Timed(round(timed.ns * ratio), round(timed.extrapolated_ns * ratio))

    def apply_many(self, ns: Integer, *, hbm_bytes: Integer, flops: Integer) -> Integer:
        """Times of one kernel at many sizes, each exactly that of :meth:`apply`."""
        if self.unchanged:
            return ns
        memory = hbm_bytes / self.bandwidth_bytes_per_s
        arithmetic = flops / self.peak_flops_per_s
        ratio = np.maximum(memory / self.hbm, arithmetic / self.compute) / np.maximum(
            memory, arithmetic
        )
        return np.rint(ns * ratio).astype(np.int64)
