"""The work/span bound of prefill attention (`calibration.hardware.PrefillSpan`)."""

from __future__ import annotations

from calibration.hardware import Gpu


class WorkSpan:
    """Time of an attention kernel from what it computes, its longest row and its bytes.

    Args:
        gpu: The GPU, with its work/span parameters.
    """

    def __init__(self, gpu: Gpu) -> None:
        fit = gpu.prefill
        self._t0_ns = fit.t0_us * 1e3
        self._ns_per_flop = 1e9 / (fit.peak_fraction * gpu.flops("bfloat16"))
        self._ns_per_key = fit.tau_ns_per_key
        self._ns_per_byte = 1e9 / (fit.hbm_fraction * gpu.hbm_bandwidth_bytes_per_s)
        self._q = fit.exponent

    def bounds(
        self, flops: float, keys: float, hbm_bytes: float
    ) -> tuple[float, float, float]:
        """Work, span and traffic (ns): FLOPs, keys of the longest row, bytes."""
        return (
            flops * self._ns_per_flop,
            keys * self._ns_per_key,
            hbm_bytes * self._ns_per_byte,
        )

    def at(self, work: float, span: float, traffic: float) -> float:
        """Time (ns) under the three bounds."""
        q = self._q
        bound: float = (work**q + span**q + traffic**q) ** (1 / q)
        return self._t0_ns + bound
