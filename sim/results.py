"""The result of a run, in memory and on disk."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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
from sim.expert_loads import experts_table, loads_table
from sim.fidelity import fidelity_summary
from sim.files import (
    write_atomic,
    write_csv_gz_atomic,
    write_json_atomic,
    write_json_gz_atomic,
)
from sim.machine.pricer import FidelityMeter
from sim.memory import memory_of, memory_summary
from sim.metrics import latency_sample
from sim.outcomes import outcomes_table
from sim.recording import Recording
from sim.run_tables import RunTables, iterations_table
from sim.shell.cluster import ClusterRun
from sim.steps import middle_window, steps_table
from sim.summary import Summary, run_summary, slo_of
from sim.swap_summary import copy_times, swap_summary
from sim.timeseries import run_end_ns, timeseries_table
from sim.units import s_from_ns
from workloads.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

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


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run leaves behind.

    Attributes:
        config: What ran.
        summary: The numbers of ``result.json``; see :func:`sim.summary.run_summary`.
        tables: See :class:`~sim.run_tables.RunTables`; each is a property here too, as
            a data frame.
        recording: Which of the tables are there; the others are empty.
        trace: See :func:`reports.trace.trace_document`; None unless asked for.
    """

    config: Config
    summary: Summary
    tables: RunTables = field(default_factory=RunTables)
    recording: Recording = Recording.ITERATIONS
    trace: dict[str, Any] | None = None

    @property
    def requests(self) -> pd.DataFrame:
        """What became of each request."""
        return self.tables.requests.frame

    @property
    def timeseries(self) -> pd.DataFrame:
        """State and power, second by second."""
        return self.tables.timeseries.frame

    @property
    def steps(self) -> pd.DataFrame:
        """Ten seconds of iterations in full detail."""
        return self.tables.steps.frame

    @property
    def iterations(self) -> pd.DataFrame:
        """One row per iteration."""
        return self.tables.iterations.frame

    @property
    def loads(self) -> pd.DataFrame:
        """Load of every GPU by MoE layer."""
        return self.tables.loads.frame

    @property
    def experts(self) -> pd.DataFrame:
        """Load of every expert by MoE layer."""
        return self.tables.experts.frame

    def reduced(self, recording: Recording) -> RunResult:
        """The result without the tables that a level does not keep."""
        tables = self.tables.reduced(recording)
        return replace(self, tables=tables, recording=recording)


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
    if not recording.requests:
        return result
    requests = outcomes_table(run.records, sample, slo_of(config))
    if not recording.iterations:
        return replace(result, tables=RunTables(requests))
    attempts = [*run.records, *run.fleet.lost] if run.fleet.lost else run.records
    at_once = config.engine.scheduler == MULTIPLEXED
    parts = [None if at_once else m.parts for m in each]
    detail = (run.logs, attempts, parts, machine.model.num_layers)
    copies = copy_times(swap, run.swaps)
    tables = RunTables(
        requests=requests,
        timeseries=timeseries_table(
            run.logs,
            [m.power for m in each],
            [m.num_blocks for m in each],
            run.fleet.off,
        ),
        steps=steps_table(*detail, middle_window(run.records), copies),
        iterations=iterations_table(run.logs),
    )
    if (loads := machine.expert_loads) is not None:
        gpus = loads_table({loads.strategy: loads.gpus})
        tables = replace(tables, loads=gpus, experts=experts_table(loads.experts))
    result = replace(result, tables=tables)
    if not trace:
        return result
    traced = _traced(result, steps_table(*detail, copies=copies).frame, run)
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
    tables = result.tables
    if result.recording.requests:
        write_csv_gz_atomic(directory / REQUESTS_FILE, tables.requests)
    if result.recording.iterations:
        write_csv_gz_atomic(directory / TIMESERIES_FILE, tables.timeseries)
        write_csv_gz_atomic(directory / STEPS_FILE, tables.steps)
    if len(tables.experts):
        write_csv_gz_atomic(directory / LOADS_FILE, tables.loads)
        write_csv_gz_atomic(directory / EXPERTS_FILE, tables.experts)
    if iterations:
        write_csv_gz_atomic(directory / ITERATIONS_FILE, tables.iterations)
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
