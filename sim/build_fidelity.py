"""From a configuration to the pricer of its fidelity: closed form, or every kernel."""

from __future__ import annotations

from calibration.kernels.kernel_list import KernelList
from sim.build import Machine
from sim.config import Config
from sim.config_errors import ConfigKeyError
from sim.machine.iteration import IterationKernels
from sim.machine.layers import GroupGpu, LayerIssue, Overlap
from sim.machine.pricer import FidelityMeter, KernelPricer, ScheduleCheck

KERNEL: str = "kernel"


def kernel_pricer(
    config: Config,
    machine: Machine,
    meter: FidelityMeter,
    check: ScheduleCheck | None = None,
) -> KernelPricer:
    """A pricer that runs every kernel of an iteration.

    Args:
        config: With ``engine.overlap``.
        machine: What it runs on.
        meter: Adds up what differs from the closed form.
        check: Is held against every schedule, or None.

    Raises:
        ConfigKeyError: If HBM or a link has no bandwidth.
    """
    gpu = GroupGpu(
        capacities=_capacities(config, machine),
        num_gpus=machine.power.num_gpus,
        layer_gap_ns=machine.profile.host.per_layer_ns,
    )
    padded = machine.profile.padded
    issue = LayerIssue(
        layers=KernelList(machine.kernels, machine.model),
        kernels=machine.kernels,
        coverage=machine.coverage,
        work=machine.work,
        padded=padded,
        gpu=gpu,
        overlap=Overlap(config.engine.overlap),
    )
    kernels = IterationKernels(
        issue=issue,
        parts=machine.parts,
        kernels=machine.kernels,
        work=machine.work,
        padded=padded,
        gpu=gpu,
        kernel_factor=machine.profile.kernel_factor,
    )
    return KernelPricer(
        closed_form=machine.pricer,
        kernels=kernels,
        capacities=gpu.capacities,
        power=machine.power,
        meter=meter,
        check=check,
    )


def _capacities(config: Config, machine: Machine) -> tuple[int, int]:
    """Bandwidth of HBM, and of the links of a GPU in one direction (bytes/s)."""
    cluster, gpu = config.cluster, machine.gpu
    return (
        _whole(
            "cluster.hbm_bandwidth_scale",
            cluster.hbm_bandwidth_scale,
            gpu.hbm_bandwidth_bytes_per_s,
        ),
        _whole(
            "cluster.link_bandwidth_scale",
            cluster.link_bandwidth_scale,
            gpu.nvlink_bandwidth_bytes_per_s,
        ),
    )


def _whole(key: str, scale: float, bytes_per_s: float) -> int:
    capacity = round(bytes_per_s * scale)
    if capacity < 1:
        raise ConfigKeyError(key, scale, "leaves less than 1 byte/s")
    return capacity
