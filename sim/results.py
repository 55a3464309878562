"""The result of a run, in memory and on disk."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from reports.placement_files import EXPERTS_FILE, LOADS_FILE
from reports.trace import TRACE_FILE, TracedRun, trace_document
from sim.build import Machine
from sim.build_pools import Machines, alike
from sim.build_swap import swap_space
from sim.config import Config
from sim.config_errors import one_line
from sim.config_multiplex import MULTIPLEXED
from sim.config_text import config_toml
from sim.errors import ConfigError, SimulationError
from sim.expert_loads import experts_frame, loads_frame
from sim.fidelity import fidelity_summary
from sim.files import (
    write_atomic,
    write_csv_gz_atomic,
    write_json_atomic,
    write_json_gz_atomic,
)
from sim.iteration_log import IterationLog
from sim.machine.pricer import FidelityMeter
from sim.memory import memory_of, memory_summary
from sim.metrics import latency_sample
from sim.recording import Recording
from sim.request_frame import requests_frame
from sim.shell.cluster import ClusterRun
from sim.steps import middle_window, steps_frame
from sim.summary import Summary, run_summary, slo_of
from sim.swap_summary import copy_times, swap_summary
from sim.timeseries import run_end_ns, timeseries_frame
from sim.units import s_from_ns
from workloads.workload import Workload

CONFIG_FILE: Final = "config.toml"
RESULT_FILE: Final = "result.json"
REQUESTS_FILE: Final = "requests.csv.gz"
TIMESERIES_FILE: Final = "timeseries.csv.gz"
STEPS_FILE: Final = "steps.csv.gz"
ITERATIONS_FILE: Final = "iterations.csv.gz"
FAILED_FILE: Final = "failed.toml"
_OPTIONAL_FILES: Final = (
    REQUESTS_FILE,
    TIMESERIES_FILE,
    STEPS_FILE,
    ITERATIONS_FILE,
    LOADS_FILE,
    EXPERTS_FILE,
    TRACE_FILE,
)

_ITERATION_COLUMNS: Final = (
    "start_ns",
    "end_ns",
    "decode_tokens",
    "prefill_layer_tokens",
    "running",
    "waiting",
    "used_blocks",
    "energy_j",
)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run leaves behind.

    Attributes:
        config: What ran.
        summary: The numbers of ``result.json``; see :func:`sim.summary.run_summary`.
        requests: See :func:`sim.request_frame.requests_frame`.
        timeseries: See :func:`sim.timeseries.timeseries_frame`.
        steps: Ten seconds of iterations in full detail; see
            :func:`sim.steps.steps_frame` and :func:`sim.steps.middle_window`.
        trace: See :func:`reports.trace.trace_document`; None unless asked for.
        iterations: One row per iteration: ``replica`` and the columns of
            :class:`~sim.iteration_log.IterationLog`.
        loads: Load of every GPU by MoE layer; see
            :func:`sim.expert_loads.loads_frame`. Empty without a placement of experts.
        experts: The same of every expert.
        recording: Which of the tables are there; the others are empty.
    """

    config: Config
    summary: Summary
    requests: pd.DataFrame = field(default_factory=pd.DataFrame)
    timeseries: pd.DataFrame = field(default_factory=pd.DataFrame)
    steps: pd.DataFrame = field(default_factory=pd.DataFrame)
    iterations: pd.DataFrame = field(default_factory=pd.DataFrame)
    loads: pd.DataFrame = field(default_factory=pd.DataFrame)
    experts: pd.DataFrame = field(default_factory=pd.DataFrame)
    recording: Recording = Recording.ITERATIONS
    trace: dict[str, Any] | None = None

    def reduced(self, recording: Recording) -> RunResult:
        """The result without the tables that a level does not keep."""
        nothing = pd.DataFrame()
        less = replace(self, recording=recording)
        if not recording.requests:
            less = replace(less, requests=nothing)
        if not recording.iterations:
            less = replace(less, timeseries=nothing, steps=nothing, iterations=nothing)
            less = replace(less, loads=nothing, experts=nothing)
        return less


def run_result(
    config: Config,
    machine: Machine | Machines,
    workload: Workload,
    run: ClusterRun,
    *,
    trace: bool = False,
    meter: FidelityMeter | None = None,
    recording: Recording = Recording.ITERATIONS,
) -> RunResult:
    """Work out the result of a finished run, if asked with its trace.

    Tables that are not recorded are empty, and :func:`write_run` does not write them.
    ``machine`` is that of all replicas, or those of all pools; ``meter`` is that of a
    run of kernel fidelity.
    """
    machines = alike(machine) if isinstance(machine, Machine) else machine
    machine, each = machines.machine, machines.of_replicas(len(run.logs))
    own = machines.pools[0].pool.config if machines.pools else config
    sample = latency_sample(run.records, [log.decode_end_ns for log in run.logs])
    swap = swap_space(config, machine)
    result = RunResult(
        config=config,
        summary={
            **run_summary(config, machines, workload, run, sample),
            **fidelity_summary(config, meter),
            **memory_summary(memory_of(own, machine)),
            **swap_summary(swap, run.swaps),
        },
        recording=recording,
    )
    if recording.requests:
        requests = requests_frame(run.records, sample, slo_of(config))
        result = replace(result, requests=requests)
    if not recording.iterations:
        return result
    attempts = [*run.records, *run.fleet.lost] if run.fleet.lost else run.records
    at_once = config.engine.scheduler == MULTIPLEXED
    parts = [None if at_once else m.parts for m in each]
    detail = (run.logs, attempts, parts, machine.model.num_layers)
    copies = copy_times(swap, run.swaps)
    result = replace(
        result,
        timeseries=timeseries_frame(
            run.logs,
            [m.power for m in each],
            [m.num_blocks for m in each],
            run.fleet.off,
        ),
        steps=steps_frame(*detail, middle_window(run.records), copies),
        iterations=_iterations_frame(run.logs),
    )
    if (loads := machine.expert_loads) is not None:
        gpus = loads_frame({loads.strategy: loads.gpus})
        result = replace(result, loads=gpus, experts=experts_frame(loads.experts))
    if not trace:
        return result
    traced = _traced(result, steps_frame(*detail, copies=copies), run)
    return replace(result, trace=trace_document(traced))


def write_run(directory: Path, result: RunResult, *, iterations: bool = False) -> None:
    """Write a result, replacing an earlier one in the same directory file by file.

    ``trace.json.gz`` is written where the result holds a trace, ``loads.csv.gz`` and
    ``experts.csv.gz`` where it holds loads of experts.
    ``result.json`` goes first and comes last, so it exists exactly when the files
    beside it are complete and belong together.

    Args:
        directory: Where to; made if need be.
        result: What to write.
        iterations: Also write ``iterations.csv.gz``.

    Raises:
        ConfigError: If a file cannot be written.
    """
    for name in (RESULT_FILE, *_OPTIONAL_FILES, FAILED_FILE):
        remove(directory / name)
    write_atomic(directory / CONFIG_FILE, config_toml(result.config).encode())
    if result.recording.requests:
        write_csv_gz_atomic(directory / REQUESTS_FILE, result.requests)
    if result.recording.iterations:
        write_csv_gz_atomic(directory / TIMESERIES_FILE, result.timeseries)
        write_csv_gz_atomic(directory / STEPS_FILE, result.steps)
    if not result.experts.empty:
        write_csv_gz_atomic(directory / LOADS_FILE, result.loads)
        write_csv_gz_atomic(directory / EXPERTS_FILE, result.experts)
    if iterations:
        write_csv_gz_atomic(directory / ITERATIONS_FILE, result.iterations)
    if result.trace is not None:
        write_json_gz_atomic(directory / TRACE_FILE, result.trace)
    write_json_atomic(directory / RESULT_FILE, result.summary)


@contextmanager
def replayable(config: Config, directory: Path) -> Iterator[None]:
    """Let a failed simulation leave its configuration, and name the replay.

    Raises:
        SimulationError: As the simulation, with the command that shows it again.
    """
    try:
        yield
    except SimulationError as error:
        make_directory(directory)
        path = directory / FAILED_FILE
        write_atomic(path, config_toml(config).encode())
        again = f"servescope run {shlex.quote(one_line(str(path)))} --check"
        raise error.replayed_by(again) from error


def _traced(result: RunResult, steps: pd.DataFrame, run: ClusterRun) -> TracedRun:
    config, summary = result.config, result.summary
    busy_ns = sum(int(log.totals["duration_ns"]) for log in run.logs)
    end_ns = run_end_ns(run.logs)
    idle_ns = len(run.logs) * end_ns - busy_ns - run.fleet.off_ns(end_ns)
    return TracedRun(
        title=f"{summary['scheduler']}, {summary['model_id']}",
        ranks=summary["num_gpus"] // config.parallel.replicas,
        num_blocks=summary["kv_cache_tokens"] // config.engine.block_size,
        idle_w=summary["energy_idle_j"] / s_from_ns(idle_ns) if idle_ns else 0.0,
        steps=steps,
        iterations=result.iterations,
        requests=result.requests,
        off=frozenset(
            (replica, *span.within_ns(end_ns))
            for replica, spans in enumerate(run.fleet.off)
            for span in spans
        ),
    )


def make_directory(directory: Path) -> None:
    """Make an output directory, so that a bad one is known before the work is done.

    Raises:
        ConfigError: If it is something else, or cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _unusable(directory, error) from None


def remove(path: Path) -> None:
    """Delete a file of an earlier result, if there is one.

    Raises:
        ConfigError: If it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or str(error)
    return ConfigError(
        f"{one_line(str(path))}: cannot be written: {one_line(str(reason))}"
    )


def _iterations_frame(logs: Sequence[IterationLog]) -> pd.DataFrame:
    frames = [
        pd.DataFrame(
            {"replica": replica}
            | {name: getattr(log, name) for name in _ITERATION_COLUMNS},
            index=range(len(log)),
        )
        for replica, log in enumerate(logs)
    ]
    return pd.concat(frames, ignore_index=True)
