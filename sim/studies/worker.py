"""What a worker process does with one point: run it, write it, hand it back."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sim.build import Machine, build_machine, build_workload_of, check_registered
from sim.build_pools import build_machines
from sim.config import Config
from sim.config_errors import clip
from sim.config_goals import CostConfig, SloConfig
from sim.config_workload import WorkloadConfig
from sim.errors import ServescopeError
from sim.memory import check_machines_memory
from sim.recording import Recording
from sim.results import RunResult, write_run
from sim.runner import PreparedRun, run_prepared
from sim.statistics import is_unstable
from sim.studies.store import PointStore, Record

UNSTABLE: Final = "unstable"
"""Added to the summary of a point: whether the queue grew while requests came."""
_LONGEST_ERROR: Final = 500
_MACHINES: Final = 4
# A machine remembers the price of every batch it has seen; this bounds the memory.
_RUNS_PER_MACHINE: Final = 64


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One run of a study.

    Attributes:
        key: Its name by content.
        config: What to run.
    """

    key: str
    config: Config


@dataclass(slots=True)
class _Used:
    machine: Machine
    runs: int = 0


_AWAY: Final = ("outages", "mtbf_s", "repair_s")

_machines: dict[Config, _Used] = {}
"""Machines of this process by what they depend on, least recently used first."""


def run_point(point: SweepPoint, directory: Path, *, full: bool = False) -> Record:
    """Run a point and write its record; a failure of the run is a record too.

    Args:
        point: What to run.
        directory: The study's folder.
        full: Also write the run's own files (see :func:`sim.results.write_run`).

    Raises:
        ConfigError: If a file cannot be written.
    """
    recording = Recording.ITERATIONS if full else Recording.REQUESTS
    result, error = _attempt(point.config, recording)
    config = point.config.resolved().model_dump(mode="json")
    store = PointStore(directory)
    if full and result is not None:
        write_run(store.folder(point.key), result)
    summary = None
    if result is not None:
        summary = {**result.summary, UNSTABLE: is_unstable(result.requests)}
    record = Record(point.key, config, summary, error)
    store.put(record)
    return record


def simulate(config: Config, recording: Recording = Recording.REQUESTS) -> RunResult:
    """Simulate on a machine that earlier points of this process may have used.

    Raises:
        ConfigError: If the configuration cannot run.
        SimulationError: If a scheduler breaks an invariant.
    """
    check_registered(config)
    machines, workload = build_machines(config, machine_of), build_workload_of(config)
    check_machines_memory(config, machines)
    pools = machines if machines.pools else None
    prepared = PreparedRun(config, machines.machine, workload, pools)
    return run_prepared(prepared, recording=recording)


def machine_of(config: Config) -> Machine:
    """The machine of a configuration, built once for many points.

    Raises:
        ConfigError: If the model does not fit, or a kernel was not profiled.
    """
    key = _machine_config(config)
    if not _machines:
        # A worker collects garbage after many a point; what was imported never is.
        gc.freeze()
    used = _machines.pop(key, None)
    if used is None or used.runs >= _RUNS_PER_MACHINE:
        used = _Used(build_machine(config))
    used.runs += 1
    _machines[key] = used
    if len(_machines) > _MACHINES:
        del _machines[next(iter(_machines))]
    return used.machine


def _machine_config(config: Config) -> Config:
    """The configuration without what a machine does not depend on."""
    engine: dict[str, object] = {
        name: type(config.engine).model_fields[name].default
        for name in (
            "scheduler",
            "max_num_batched_tokens",
            "num_layer_groups",
            "layer_group_rule",
            "prefill_sm_share",
            "max_num_seqs",
            "fidelity",
            "overlap",
        )
    }
    if config.parallel.pipeline_parallel_size > 1:
        # What fits into a micro-batch is part of the price of a round.
        engine["max_num_batched_tokens"] = config.engine.token_budget
    return config.model_copy(
        update={
            "seed": 0,
            "engine": config.engine.model_copy(update=engine),
            "cluster": config.cluster.model_copy(update=dict.fromkeys(_AWAY)),
            "workload": WorkloadConfig(),
            "slo": SloConfig(),
            "cost": CostConfig(),
        }
    )


def _attempt(
    config: Config, recording: Recording
) -> tuple[RunResult | None, str | None]:
    """The result, or why there is none."""
    try:
        return simulate(config, recording), None
    except ServescopeError as error:
        return None, _one_line(str(error))
    except Exception as error:  # a bug in one point stops no other
        return None, _one_line(f"{type(error).__name__}: {error}")


def _one_line(text: str) -> str:
    return clip(" ".join(text.split()), _LONGEST_ERROR)
