"""From a configuration to its result; prints and writes nothing.

A script needs no more than::

    from sim.config_file import load_config
    from sim.runner import run_config

    result = run_config(load_config(None, ["workload.request_rate=1.5"]))
    print(result.summary["mean_ttft_ms"])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sim.build import Machine, build_workload_of, check_registered
from sim.build_cluster import build_cluster, outages_of
from sim.build_fidelity import (
    KERNEL,
    check_fidelity,
    check_traceable,
    kernel_pricer,
)
from sim.build_pools import Machines, alike, build_machines
from sim.build_swap import swap_space
from sim.config import Config
from sim.errors import ConfigError
from sim.events import Observer
from sim.machine.pricer import FidelityMeter, ScheduleCheck
from sim.memory import check_machines_memory
from sim.recording import Recording
from sim.results import RunResult, run_result
from sim.shell.cluster import ClusterRun
from workloads.workload import Workload


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A configuration that has proved runnable.

    Attributes:
        config: What to run.
        machine: Model, GPUs and engine; of the first pool where there are several.
        workload: The requests.
        pools: Machines of all pools; None without any.
    """

    config: Config
    machine: Machine
    workload: Workload
    pools: Machines | None = None

    @property
    def machines(self) -> Machines:
        """What every replica runs on."""
        return self.pools or alike(self.machine)


def prepare(config: Config) -> PreparedRun:
    """Check a configuration and build all that can fail, without running it.

    Raises:
        ConfigError: If a name is unknown, the model does not fit, a kernel was not
            profiled, a trace or file of outages is missing or malformed, or the host
            pool holds no KV block.
    """
    check_registered(config)
    machines = build_machines(config)
    check_machines_memory(config, machines)
    check_fidelity(config, machines.machine)
    swap_space(config, machines.machine)
    outages_of(config)
    workload, pools = build_workload_of(config), machines if machines.pools else None
    return PreparedRun(config, machines.machine, workload, pools)


def run_prepared(
    prepared: PreparedRun,
    on_done: Callable[[], None] | None = None,
    *,
    check: bool = False,
    trace: bool = False,
    recording: Recording = Recording.ITERATIONS,
) -> RunResult:
    """Run what was prepared; every call starts from an empty, idle cluster.

    Args:
        prepared: What to run.
        on_done: Called as each request finishes or is rejected.
        check: Watch every invariant of ``sim.checks``; the result is the same.
        trace: Also make a trace of all iterations.
        recording: How much to keep; the numbers are the same.

    Raises:
        ConfigError: If a trace is asked of experts that move or kernels that overlap.
        SimulationError: If the scheduler or the engine breaks an invariant.
    """
    config, machine, workload = prepared.config, prepared.machine, prepared.workload
    if trace:
        _check_traceable(config, machine)
    kept = Recording.ITERATIONS if check or trace else recording
    law, observer = _laws() if check else (None, None)
    meter = pricer = None
    if config.engine.fidelity == KERNEL:
        meter = FidelityMeter()
        pricer = kernel_pricer(config, machine, meter, law)
    machines = prepared.machines
    cluster = build_cluster(
        config, machines, workload, detailed=kept.iterations, pricer=pricer
    )
    run = cluster.run(workload.requests, on_done, observer)
    result = run_result(
        config, machines, workload, run, trace=trace, meter=meter, recording=kept
    )
    if check:
        _check_result(machines, workload, run, result)
    return result.reduced(recording)


# Laws take a twenty-fifth of a short run's time to load, so only checked runs do.


def _laws() -> tuple[ScheduleCheck, Observer]:
    """What is held against every schedule of kernels, and against every event."""
    from sim.checks import run_checker  # noqa: PLC0415
    from sim.checks.machine import check_schedule  # noqa: PLC0415

    return check_schedule, run_checker()


def _check_result(
    machines: Machines, workload: Workload, run: ClusterRun, result: RunResult
) -> None:
    from sim.checks.results import Finished, check_result  # noqa: PLC0415

    check_result(Finished(machines, workload, run, result))


def _check_traceable(config: Config, machine: Machine) -> None:
    check_traceable(config)
    if config.pools:
        raise ConfigError("--trace: pools are not drawn; allowed: without [pools]")
    if machine.parts is None:
        raise ConfigError(
            "--trace: experts that move or topics that change leave no kernel split;"
            " allowed: without moe.rebalance_interval and moe.topic_period_s"
        )


def run_config(
    config: Config,
    on_done: Callable[[], None] | None = None,
    *,
    check: bool = False,
    recording: Recording = Recording.ITERATIONS,
) -> RunResult:
    """Simulate a configuration.

    Args:
        config: What to run.
        on_done: Called as each request finishes or is rejected.
        check: As :func:`run_prepared`.
        recording: As :func:`run_prepared`.

    Raises:
        ConfigError: As :func:`prepare`.
        SimulationError: As :func:`run_prepared`.
    """
    return run_prepared(prepare(config), on_done, check=check, recording=recording)
