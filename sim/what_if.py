"""What-if knobs: which of them a configuration turns, and which kernels they move."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from calibration.hardware import Gpu
from calibration.model_shape import ModelShape
from sim.config import Config
from sim.config_errors import ConfigKeyError
from sim.config_multiplex import MULTIPLEXED
from sim.energy import PowerModel
from sim.step import StepPricer
from sim.throttle import ThrottledPricer

UNVALIDATED: Final = "(unvalidated)"
_PRICED_BY_ROOFLINE: Final = ("linear", "experts", "attention", "head")
# What a knob moves: kernels whose time is no longer the profiled one.
_MOVES: Final = {
    "cluster.hbm_bandwidth_scale": (*_PRICED_BY_ROOFLINE, "elementwise"),
    "cluster.flops_scale": _PRICED_BY_ROOFLINE,
    "cluster.link_bandwidth_scale": ("all_reduce", "gather"),
    "cluster.hbm_capacity_scale": (),
    "engine.prefill_sm_share": _PRICED_BY_ROOFLINE,
    "cluster.power_cap_w": (*_PRICED_BY_ROOFLINE, "elementwise", "all_reduce"),
    "model.num_experts": ("experts", "linear"),
    "model.top_k": ("experts",),
}

_NOT_PROFILED: Final = ("engine.prefill_sm_share", "cluster.power_cap_w")


def turned_knobs(config: Config) -> dict[str, object]:
    """Values by key of the what-if knobs that are not at their default."""
    values = {key: _value(config, key) for key in _MOVES}
    if config.engine.scheduler != MULTIPLEXED:
        del values["engine.prefill_sm_share"]
    return {key: v for key, v in values.items() if v is not None and v != 1.0}


def what_if_text(config: Config) -> str:
    """The knobs, such as "cluster.hbm_bandwidth_scale = 1.5"; empty without any."""
    return "; ".join(
        f"{key} = {value}" + (f" {UNVALIDATED}" if key in _NOT_PROFILED else "")
        for key, value in turned_knobs(config).items()
    )


def what_if_kernels(config: Config) -> str:
    """Kernels whose times are moved from the profiled ones, with commas between."""
    moved = (kernel for key in turned_knobs(config) for kernel in _MOVES[key])
    return ", ".join(dict.fromkeys(moved))


def what_if_shape(config: Config, shape: ModelShape) -> ModelShape:
    """The model with its number of experts and experts per token as configured.

    Raises:
        ConfigKeyError: If it has no experts, or fewer than a token needs.
    """
    count, top_k = config.model.num_experts, config.model.top_k
    for key, value in (("model.num_experts", count), ("model.top_k", top_k)):
        if value is not None and not shape.is_moe:
            raise ConfigKeyError(
                key, value, f"must be none: {shape.name} has no experts"
            )
    shape = replace(
        shape,
        num_experts=shape.num_experts if count is None else count,
        top_k=shape.top_k if top_k is None else top_k,
    )
    if shape.is_moe and shape.top_k > shape.num_experts:
        key = "model.num_experts" if top_k is None else "model.top_k"
        raise ConfigKeyError(
            key,
            count if top_k is None else top_k,
            f"{shape.top_k} experts per token must be <= {shape.num_experts} experts",
        )
    return shape


def what_if_memory(config: Config, device: Gpu) -> Gpu:
    """The GPU with its HBM capacity as configured."""
    scaled = round(device.hbm_bytes * config.cluster.hbm_capacity_scale)
    return replace(device, hbm_bytes=scaled)


def what_if_pricer(config: Config, pricer: StepPricer, power: PowerModel) -> StepPricer:
    """The pricer, slowed down where a power cap is configured.

    Raises:
        ConfigKeyError: If running kernels alone draw more, so that none would finish.
    """
    cap_w = config.cluster.power_cap_w
    if cap_w is None:
        return pricer
    if cap_w <= power.run_w:
        raise ConfigKeyError(
            "cluster.power_cap_w",
            cap_w,
            f"must be > {power.run_w:g}, the power of running kernels in our model",
        )
    return ThrottledPricer(pricer, replace(power, cap_w=cap_w))


def _value(config: Config, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)
