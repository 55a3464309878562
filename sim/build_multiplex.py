"""From a configuration to GPUs whose SMs prefill and decode share."""

from __future__ import annotations

from sim.build import Machine, build_machine
from sim.config import Config
from sim.config_errors import ConfigKeyError
from sim.config_multiplex import MULTIPLEXED
from sim.multiplex import SharedGpus
from sim.step_cost import StepCostModel


def shared_gpus(config: Config, machine: Machine) -> SharedGpus | None:
    """The GPUs of a replica with their SMs divided; None under other policies.

    A share of the SMs is a machine with that share of the peak FLOP/s
    (:class:`calibration.kernels.what_if.MachineScale`).

    Raises:
        ConfigKeyError: If HBM has no bandwidth, or a share no FLOP/s.
    """
    if config.engine.scheduler != MULTIPLEXED:
        return None
    scale = config.cluster.hbm_bandwidth_scale
    each = machine.gpu.hbm_bandwidth_bytes_per_s
    bandwidth = round(machine.power.num_gpus * each * scale)
    if bandwidth < 1:
        key = "cluster.hbm_bandwidth_scale"
        raise ConfigKeyError(key, scale, "leaves less than 1 byte/s")
    prefill = config.engine.prefill_sm_share
    return SharedGpus(
        decode=_on_share(config, machine, 1 - prefill),
        prefill=_on_share(config, machine, prefill),
        host=machine.profile.host,
        num_layers=machine.deployment.model.num_layers,
        hbm_bytes_per_s=bandwidth,
    )


def _on_share(config: Config, machine: Machine, share: float) -> StepCostModel:
    """Prices of iterations on a share of the SMs, with all of the bandwidth."""
    scale = config.cluster.flops_scale
    flops = scale * share
    if not flops:
        key = "cluster.flops_scale"
        raise ConfigKeyError(key, scale, "leaves a share of the SMs no FLOP/s")
    cluster = config.cluster.model_copy(update={"flops_scale": flops})
    scaled = config.model_copy(update={"cluster": cluster})
    pricer = build_machine(scaled, machine.profile).pricer
    assert isinstance(pricer, StepCostModel)  # noqa: S101  (no pipeline)
    return pricer
