"""Policies against request rates, all on the same requests, one process per core."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
from joblib import Parallel, cpu_count, delayed

from reports.compare import write_compare_report
from reports.frame import COMPARE_FILE
from reports.tradeoff import TRADEOFF_FILE
from sim.build import build_workload_of, check_registered
from sim.build_pools import build_machines
from sim.config import Config
from sim.config_file import load_config
from sim.config_sections import CHUNKED_PREFILL
from sim.errors import ConfigError
from sim.files import write_csv_atomic
from sim.paired import METRICS, PAIRED_COLUMNS, paired_differences
from sim.point import Point
from sim.policies import parse_policy, policy_label
from sim.results import make_directory, remove, replayable, write_run
from sim.runner import run_config
from sim.summary import Summary
from sim.tradeoff import LAYERED_PREFILL, Setting, plan_tradeoff

PAIRED_FILE: Final = "paired.csv"
DEFAULT_SCHEDULERS: Final = (CHUNKED_PREFILL, LAYERED_PREFILL)
DEFAULT_RATES: Final = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8)
_PAIR_COLUMNS: Final = ("load", "scheduler", "baseline")
# The engine in which both policies were measured side by side.
DEFAULT_PROFILE: Final = "layered-prefill-v1"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a comparison runs.

    Attributes:
        points: Policies against loads, by load and then policy.
        tradeoff: TTFT against TBT at one rate; see :func:`sim.tradeoff.plan_tradeoff`.
    """

    points: Sequence[Point]
    tradeoff: Sequence[Setting]

    @property
    def runs(self) -> list[Point]:
        """All that runs, each once: the points, then further settings."""
        every = (*self.points, *(setting.point for setting in self.tradeoff))
        return list({point.folder: point for point in every}.values())


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of a comparison.

    Attributes:
        points: The summaries, by load and then policy.
        further: Those of the further settings of the trade-off.
        paired: Per load, policy and metric, the difference from the baseline policy:
            chunked prefill, or the first policy where that is not compared.
        figures: Files of the figures.
    """

    points: list[Summary]
    further: list[Summary]
    paired: list[dict[str, Any]]
    figures: list[Path]


def plan_points(
    path: Path | None,
    overrides: Sequence[str] = (),
    *,
    schedulers: Sequence[str] = DEFAULT_SCHEDULERS,
    rates: Sequence[float] | None = None,
    profile: str | None = None,
) -> Plan:
    """Check a comparison before anything runs.

    Args:
        path: Configuration file or None; its scheduler is not used.
        overrides: ``key=value`` texts of ``--set``.
        schedulers: Policies, see :mod:`sim.policies`; a repeated one counts once.
        rates: Request rates; None for the rate of the configuration if it sets one,
            else ``DEFAULT_RATES``.
        profile: Engine profile; None for that of the configuration if it sets one,
            else ``DEFAULT_PROFILE``.

    Raises:
        ConfigError: If any point cannot run, or rates are given for users who have
            none: a closed loop, or a trace with arrival times.
    """
    base = load_config(path, overrides)
    has_rate = _has_rate(base)
    if profile is None and "profile" not in base.calibration.model_fields_set:
        profile = DEFAULT_PROFILE
    policies = dict.fromkeys(parse_policy(word) for word in schedulers)
    points = [
        _point(
            load_config(
                path,
                overrides,
                {
                    "workload.request_rate": rate,
                    "calibration.profile": profile,
                    **policy.settings(base),
                },
                check_registered,
            ),
            has_rate=has_rate,
        )
        for rate in _rates(base, rates, has_rate=has_rate)
        for policy in policies
    ]
    if not points:
        raise ConfigError("compare: needs at least one scheduler and one rate")
    # Machines depend on neither rate nor scheduler, requests on the rate alone.
    machine = build_machines(points[0].config).machine
    for config in {point.load: point.config for point in points}.values():
        build_workload_of(config)
    if not has_rate:
        return Plan(points, [])
    own_rate, num_layers = base.workload.request_rate, machine.model.num_layers
    return Plan(points, plan_tradeoff(points, own_rate, num_layers))


def compare(
    plan: Plan,
    directory: Path,
    *,
    jobs: int | None = None,
    iterations: bool = False,
    on_done: Callable[[], None] = lambda: None,
    check: bool = False,
) -> Comparison:
    """Run a plan; write its runs, their tables and figures.

    The tables are ``compare.csv``, ``paired.csv`` and, if there is a trade-off,
    ``tradeoff.csv``.

    Files of an earlier comparison in the same directory are replaced one by one;
    results do not depend on the number of processes.

    Args:
        plan: What to run.
        directory: Where to; each run in its own folder below.
        jobs: Processes; None for one per core.
        iterations: Also write each run's iterations.
        on_done: Called as each run finishes.
        check: Watch every invariant of ``sim.checks``; the results are the same.

    Raises:
        ConfigError: If a file cannot be written.
        SimulationError: If a scheduler or the engine breaks an invariant.
    """
    make_directory(directory)
    for name in (COMPARE_FILE, PAIRED_FILE, TRADEOFF_FILE):
        remove(directory / name)
    tasks = [
        delayed(_run_point)(point, directory, iterations, check) for point in plan.runs
    ]
    summaries: dict[str, Summary] = {}
    requests: dict[str, pd.DataFrame] = {}
    processes = min(jobs or cpu_count(), len(tasks))
    for folder, summary, frame in Parallel(
        n_jobs=processes, return_as="generator_unordered"
    )(tasks):
        summaries[folder], requests[folder] = summary, frame
        on_done()
    in_order = [summaries[point.folder] for point in plan.runs]
    compared, further = in_order[: len(plan.points)], in_order[len(plan.points) :]
    paired = _paired(plan.points, requests)
    pairs = pd.DataFrame(paired, columns=[*_PAIR_COLUMNS, *PAIRED_COLUMNS])
    write_csv_atomic(directory / PAIRED_FILE, pairs)
    if plan.tradeoff:
        table = _tradeoff_frame(plan.tradeoff, summaries)
        write_csv_atomic(directory / TRADEOFF_FILE, table)
    write_csv_atomic(directory / COMPARE_FILE, compare_frame(compared))
    return Comparison(compared, further, paired, write_compare_report(directory))


def compare_frame(summaries: Sequence[Summary]) -> pd.DataFrame:
    """The summaries as a table, one row each, with the model under ``model``."""
    rows = [
        {key: math.nan if value is None else value for key, value in summary.items()}
        for summary in summaries
    ]
    frame = pd.DataFrame(rows).rename(columns={"model_id": "model"})
    # In one piece: pandas warns of frames that are put together column by column.
    return frame.astype({"request_rate": float}).copy()


def _tradeoff_frame(
    settings: Sequence[Setting], summaries: Mapping[str, Summary]
) -> pd.DataFrame:
    """The settings as a table: of the comparison, with the knob and its value."""
    frame = compare_frame([summaries[setting.point.folder] for setting in settings])
    values = [setting.value for setting in settings]
    return frame.assign(
        knob=pd.Series([setting.knob for setting in settings], dtype="object"),
        knob_value=pd.array(values, dtype="Int64"),
    )


def _run_point(
    point: Point, directory: Path, iterations: bool, check: bool
) -> tuple[str, Summary, pd.DataFrame]:
    folder = directory / point.folder
    with replayable(point.config, folder):
        result = run_config(point.config, check=check)
    write_run(folder, result, iterations=iterations)
    return point.folder, result.summary, result.requests[["id", *METRICS]]


def _has_rate(config: Config) -> bool:
    """Whether a request rate means something: not to a closed loop or a timed trace."""
    if config.workload.max_concurrency is not None:
        return False
    if config.workload.path is None:
        return True
    return build_workload_of(config).offered_rate is not None


def _rates(
    base: Config, rates: Sequence[float] | None, *, has_rate: bool
) -> Sequence[float | None]:
    """The rates to set; None leaves the configuration's own load alone."""
    if not has_rate:
        if rates is None:
            return (None,)
        closed = base.workload.max_concurrency is not None
        key = "workload.max_concurrency" if closed else "workload.path"
        raise ConfigError(f"--rates: {key} leaves no rate to set; allowed: no --rates")
    if rates is not None:
        return list(dict.fromkeys(rates))
    own = "request_rate" in base.workload.model_fields_set
    return (None,) if own else DEFAULT_RATES


def _point(config: Config, *, has_rate: bool) -> Point:
    policy, load = policy_label(config), _load(config, has_rate=has_rate)
    return Point(policy, load, f"{policy}/{load}", config)


def _load(config: Config, *, has_rate: bool) -> str:
    if config.workload.max_concurrency is not None:
        return f"concurrency-{config.workload.max_concurrency}"
    if not has_rate:
        return "trace"
    rate = config.workload.request_rate
    short = f"{rate:.2f}"
    return f"rate-{short if float(short) == rate else repr(rate)}"


def _paired(
    points: Sequence[Point], requests: Mapping[str, pd.DataFrame]
) -> list[dict[str, Any]]:
    names = [point.scheduler for point in points]
    baseline = CHUNKED_PREFILL if CHUNKED_PREFILL in names else names[0]
    frames = {(point.load, point.scheduler): requests[point.folder] for point in points}
    return [
        {
            "load": point.load,
            "scheduler": point.scheduler,
            "baseline": baseline,
            **row,
        }
        for point in points
        if point.scheduler != baseline
        for row in paired_differences(
            frames[point.load, point.scheduler], frames[point.load, baseline]
        )
    ]
