"""From a configuration to the pricer of its fidelity: closed form, or every kernel."""

from __future__ import annotations

from typing import Final

from calibration.kernels.kernel_list import KernelList
from sim.build import Machine
from sim.build_placement import is_placed
from sim.config import Config
from sim.config_errors import ConfigKeyError
from sim.config_multiplex import MULTIPLEXED
from sim.machine.iteration import IterationKernels
from sim.machine.layers import GroupGpu, LayerIssue, Overlap
from sim.machine.pricer import FidelityMeter, KernelPricer, ScheduleCheck
from sim.step_parts import StepParts

KERNEL: Final = "kernel"


def check_fidelity(config: Config, machine: Machine) -> None:
    """Refuse a machine that kernel fidelity cannot run.

    Raises:
        ConfigKeyError: If HBM or a link has no bandwidth, or the machine has a cost
            model of its own, which is not listed kernel by kernel.
    """
    if config.engine.fidelity != KERNEL:
        return
    _capacities(config, machine)
    _parts(config, machine)


def _parts(config: Config, machine: Machine) -> StepParts:
    """The kernels of an iteration, where they are listed one by one."""
    if is_placed(config) or machine.parts is None:
        raise ConfigKeyError(
            "engine.fidelity",
            KERNEL,
            'must be "iteration" where experts are placed rank by rank',
        )
    return machine.parts


def check_traceable(config: Config) -> None:
    """Refuse to trace kernels that overlap: a trace draws one after the other.

    Raises:
        ConfigKeyError: If ``engine.overlap`` is not "none", the replica a pipeline, or
            prefill beside decode on SMs of its own.
    """
    if config.engine.scheduler == MULTIPLEXED:
        raise ConfigKeyError(
            "engine.scheduler",
            MULTIPLEXED,
            "must be another with --trace, which draws one kernel after the other",
        )
    stages = config.parallel.pipeline_parallel_size
    if stages > 1:
        raise ConfigKeyError(
            "parallel.pipeline_parallel_size",
            stages,
            "must be 1 with --trace, which draws one kernel after the other",
        )
    if Overlap(config.engine.overlap) is not Overlap.NONE:
        raise ConfigKeyError(
            "engine.overlap",
            config.engine.overlap,
            'must be "none" with --trace, which draws kernels one after the other',
        )


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
        ConfigKeyError: As :func:`check_fidelity`.
    """
    check_fidelity(config, machine)
    gpu = GroupGpu(
        capacities=_capacities(config, machine),
        num_gpus=machine.power.num_gpus,
        layer_gap_ns=machine.profile.host.per_layer_ns,
    )
    padded = machine.profile.padded
    issue = LayerIssue(
        layers=KernelList(machine.kernels),
        kernels=machine.kernels,
        coverage=machine.coverage,
        work=machine.work,
        padded=padded,
        gpu=gpu,
        overlap=Overlap(config.engine.overlap),
    )
    kernels = IterationKernels(
        issue=issue,
        parts=_parts(config, machine),
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
