"""The hardware catalogue: what each profiled GPU can do and what power it draws.

The numbers, each with its source, are in ``data/gpus.toml``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from calibration.lookup import unknown_name
from sim.errors import ConfigError

_CATALOGUE: Final = Path(__file__).parent / "data" / "gpus.toml"


@dataclass(frozen=True, slots=True)
class GpuPower:
    """Parameters of the additive board-power model of one GPU.

    E = run_w * busy time + gap_w * wait time + HBM bytes and FLOPs at their pJ, capped
    at cap_w * time; idle_context_w with a model loaded and nothing to do, idle_bare_w
    without a process. None marks a format the GPU cannot run. `confidence` is "high",
    "medium", "low", or "none" where nothing was measured and another GPU's values are
    scaled by TDP.
    """

    confidence: str
    cap_w: float
    idle_bare_w: float
    idle_context_w: float
    gap_w: float
    bf16_run_w: float
    four_bit_run_w: float
    hbm_pj_per_byte: float
    bf16_pj_per_flop: float
    fp8_run_w: float | None = None
    fp8_pj_per_flop: float | None = None

    def run_w(self, dtype: str) -> float:
        """Power while kernels run, before HBM and FLOP energy, by weight format.

        Raises:
            ConfigError: if the GPU cannot run `dtype`.
        """
        by_dtype = {"fp8": self.fp8_run_w, "mxfp4": self.four_bit_run_w}
        return _supported(dtype, {"bfloat16": self.bf16_run_w, **by_dtype})

    def flop_pj(self, dtype: str) -> float:
        """Energy of one floating-point operation by weight format (mxfp4: bf16 math).

        Raises:
            ConfigError: if the GPU cannot run `dtype`.
        """
        return _supported(dtype, _by_math(self.bf16_pj_per_flop, self.fp8_pj_per_flop))


@dataclass(frozen=True, slots=True)
class PrefillSpan:
    """Work/span parameters of one prefill-attention kernel.

    For a chunk of s tokens after a prefix of P keys

        t = t0 + ((FLOPs / (peak_fraction * peak))^q + (tau * (P + s))^q
                  + (bytes / (hbm_fraction * HBM bandwidth))^q)^(1/q)

    with q = `exponent`, tau the serial time per key of one thread block, FLOPs the
    causal 4 * heads * head_dim * sum of keys seen, and bytes those of Q, K, V and O.
    """

    t0_us: float
    peak_fraction: float
    tau_ns_per_key: float
    exponent: float
    hbm_fraction: float


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: capacities in bytes, rates per second, links in one direction.

    Attributes:
        name: catalogue name, also the name of its kernel tables.
        hbm_bytes: memory capacity.
        hbm_bandwidth_bytes_per_s: peak memory bandwidth.
        bf16_flops_per_s: dense tensor-core peak.
        fp8_flops_per_s: the same for fp8, None if the GPU has none.
        l2_bytes: last-level cache.
        nvlink_bandwidth_bytes_per_s: to the other GPUs of the node.
        nic_bandwidth_bytes_per_s: to GPUs of other nodes, of one GPU.
        gpus_per_node: GPUs that share a node's NVLink.
        elementwise_bandwidth_fraction: share of the HBM bandwidth that memory-bound
            kernels (norms, rope) reach.
        elementwise_latency_us: constant part of such a kernel.
        nccl_bytes: (GPUs in the group, memory NCCL takes) in ascending order.
        other_bytes: memory of context, graphs and workspaces.
        power: power model.
        prefill: prefill-attention model.
    """

    name: str
    hbm_bytes: int
    hbm_bandwidth_bytes_per_s: float
    bf16_flops_per_s: float
    fp8_flops_per_s: float | None
    l2_bytes: int
    nvlink_bandwidth_bytes_per_s: float
    nic_bandwidth_bytes_per_s: float
    gpus_per_node: int
    elementwise_bandwidth_fraction: float
    elementwise_latency_us: float
    nccl_bytes: tuple[tuple[int, int], ...]
    other_bytes: int
    power: GpuPower
    prefill: PrefillSpan

    def flops(self, dtype: str) -> float:
        """Dense peak in FLOP/s by weight format (mxfp4 weights compute in bf16).

        Raises:
            ConfigError: if the GPU cannot run `dtype`.
        """
        return _supported(dtype, _by_math(self.bf16_flops_per_s, self.fp8_flops_per_s))

    def reserved_bytes(self, num_gpus: int) -> int:
        """Memory taken by NCCL in a group of `num_gpus` and by everything else.

        A group size that is not listed counts as the next larger one listed.
        """
        fitting = [taken for size, taken in self.nccl_bytes if size >= num_gpus]
        nccl = fitting[0] if fitting else self.nccl_bytes[-1][1]
        return nccl + self.other_bytes

    def scaled(
        self,
        hbm_bandwidth_scale: float = 1.0,
        flops_scale: float = 1.0,
        link_bandwidth_scale: float = 1.0,
    ) -> Gpu:
        """A what-if GPU with faster or slower memory, tensor cores or NVLink.

        Raises:
            ConfigError: if a scale is not a finite number > 0.
        """
        hbm = _scale("hbm_bandwidth_scale", hbm_bandwidth_scale)
        flops = _scale("flops_scale", flops_scale)
        link = _scale("link_bandwidth_scale", link_bandwidth_scale)
        fp8 = self.fp8_flops_per_s
        return replace(
            self,
            hbm_bandwidth_bytes_per_s=self.hbm_bandwidth_bytes_per_s * hbm,
            bf16_flops_per_s=self.bf16_flops_per_s * flops,
            fp8_flops_per_s=None if fp8 is None else fp8 * flops,
            nvlink_bandwidth_bytes_per_s=self.nvlink_bandwidth_bytes_per_s * link,
        )


def gpu_names() -> tuple[str, ...]:
    """The names of the catalogue's GPUs, without aliases."""
    return tuple(_catalogue())


def gpu_aliases() -> tuple[str, ...]:
    """Other names that :func:`gpu` takes, such as "h100"."""
    return tuple(_aliases())


def gpu(name: str) -> Gpu:
    """The GPU of a catalogue name or alias ("h100_sxm", "H100-SXM", "h100").

    Raises:
        ConfigError: if there is no such GPU.
    """
    wanted = name.strip().casefold().replace("-", "_").replace(" ", "_")
    found = _catalogue().get(_aliases().get(wanted, wanted))
    if found is None:
        raise unknown_name("GPU", name, gpu_names())
    return found


@cache
def _tables() -> Mapping[str, Any]:
    return MappingProxyType(tomllib.loads(_CATALOGUE.read_text(encoding="utf-8")))


@cache
def _catalogue() -> Mapping[str, Gpu]:
    return MappingProxyType({n: _parse(n, values) for n, values in _tables().items()})


@cache
def _aliases() -> Mapping[str, str]:
    pairs = ((a, name) for name, values in _tables().items() for a in values["aliases"])
    return MappingProxyType(dict(pairs))


def _parse(name: str, values: Mapping[str, Any]) -> Gpu:
    parsed = {
        "fp8_flops_per_s": None,
        **values,
        "nccl_bytes": tuple((size, taken) for size, taken in values["nccl_bytes"]),
        "power": GpuPower(**values["power"]),
        "prefill": PrefillSpan(**values["prefill"]),
    }
    del parsed["aliases"]
    return Gpu(name=name, **parsed)


def _by_math(bf16: float, fp8: float | None) -> dict[str, float | None]:
    return {"bfloat16": bf16, "fp8": fp8, "mxfp4": bf16}


def _supported(dtype: str, by_dtype: Mapping[str, float | None]) -> float:
    allowed = [name for name, value in by_dtype.items() if value is not None]
    value = by_dtype.get(dtype)
    if value is None:
        formats = ", ".join(allowed)
        raise ConfigError(
            f'dtype "{dtype}": this GPU cannot run it; allowed: {formats}'
        )
    return value


def _scale(key: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{key} = {value}: must be a finite number > 0")
    return value
