"""Running a study: what is missing, in parallel, into one tidy table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pandas as pd
from joblib import delayed
from joblib.externals.loky.process_executor import BrokenProcessPool

from sim.build import check_registered
from sim.config import Config
from sim.errors import ConfigError, SimulationError
from sim.files import write_atomic, write_csv_atomic
from sim.studies.design import Settings
from sim.studies.executors import LOCAL, check_executor, workers
from sim.studies.key import point_key
from sim.studies.replications import MEANS_FILE, means_frame
from sim.studies.store import PointStore, Record, only_writer
from sim.studies.study import SEED, Study
from sim.studies.worker import SweepPoint, run_point

POINTS_FILE: Final = "points.csv"
PARQUET_FILE: Final = "points.parquet"
OK: Final = "ok"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """All points of a study, checked, in order; equal ones once.

    Attributes:
        points: What runs.
        settings: The value of every varied key at each point.
    """

    points: Sequence[SweepPoint]
    settings: Sequence[Settings]


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """How a sweep runs; none of it changes a result.

    Attributes:
        jobs: Workers; None for all there are.
        executor: See :func:`sim.studies.executors.workers`.
        retry_failed: Run points again that failed.
        full: Also write each run's own files.
    """

    jobs: int | None = None
    executor: str = LOCAL
    retry_failed: bool = False
    full: bool = False


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep leaves behind.

    Attributes:
        points: A row per point: ``key``, ``status`` ("ok" or "failed"), ``error``, the
            varied keys, then the keys of ``result.json``.
        means: Where seeds are varied, their means with intervals; see
            :func:`sim.studies.replications.means_frame`.
        varied: The varied keys.
        ran: Points run this time; the others were there.
    """

    points: pd.DataFrame
    means: pd.DataFrame | None
    varied: tuple[str, ...]
    ran: int

    @property
    def failed(self) -> pd.DataFrame:
        """The rows without a result."""
        return self.points[self.points["status"] == FAILED]


def plan_sweep(study: Study) -> SweepPlan:
    """Check every point of a study before any runs.

    Raises:
        ConfigError: If settings are not allowed, a name is unknown or a file missing.
    """
    points: dict[str, SweepPoint] = {}
    settings: list[Settings] = []
    for given in study.settings:
        config = study.config(given, check_registered)
        key = point_key(config)
        if key not in points:
            points[key] = SweepPoint(key, config)
            settings.append({name: value_of(config, name) for name in study.varied})
    return SweepPlan(list(points.values()), settings)


def pending(
    plan: SweepPlan, directory: Path, *, retry_failed: bool = False
) -> list[SweepPoint]:
    """The points that still have to run.

    Raises:
        ConfigError: If a file of the folder cannot be read.
    """
    store = PointStore(directory)
    records = ((point, store.get(point.key)) for point in plan.points)
    return [
        point
        for point, record in records
        if record is None or (retry_failed and not record.ok)
    ]


def sweep(
    plan: SweepPlan,
    directory: Path,
    options: SweepOptions | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> SweepResult:
    """Run the points of a plan that the folder lacks; write ``points.csv``.

    A point is on disk as soon as it is done, so a sweep that died goes on where it
    was; bytes do not depend on how often, on the executor or the number of workers.

    Args:
        plan: What to run.
        directory: The study's folder.
        options: How.
        on_done: Called as each point finishes.

    Raises:
        ConfigError: If a file cannot be written, another sweep uses the folder, or
            the executor cannot be used.
        SimulationError: If a worker process died.
    """
    options = options or SweepOptions()
    check_executor(options.executor)
    store = PointStore(directory)
    with only_writer(directory):
        store.clean()
        todo = pending(plan, directory, retry_failed=options.retry_failed)
        if todo:
            run_points(todo, directory, options, on_done)
        frame = points_frame(plan, [_known(store, p) for p in plan.points])
        write_csv_atomic(directory / POINTS_FILE, frame)
        if find_spec("pyarrow") is not None:
            _write_parquet(directory / PARQUET_FILE, frame)
        varied = tuple(plan.settings[0])
        means = means_frame(frame, varied) if SEED in varied else None
        if means is not None:
            write_csv_atomic(directory / MEANS_FILE, means)
    return SweepResult(frame, means, varied, len(todo))


def points_frame(plan: SweepPlan, records: Sequence[Record]) -> pd.DataFrame:
    """The table of :class:`SweepResult`; a number that does not exist is NaN."""
    rows = [
        {
            "key": record.key,
            "status": OK if record.ok else FAILED,
            "error": record.error or "",
            **settings,
            **(record.summary or {}),
        }
        for settings, record in zip(plan.settings, records, strict=True)
    ]
    frame = pd.DataFrame(rows)
    return frame.fillna(dict.fromkeys(frame, math.nan)).infer_objects().copy()


def value_of(config: Config, key: str) -> Any:
    """The resolved value of a dotted key."""
    value: Any = config.resolved()
    for part in key.split("."):
        value = getattr(value, part)
    return value


def run_points(
    points: Sequence[SweepPoint],
    directory: Path,
    options: SweepOptions,
    on_done: Callable[[], None] = lambda: None,
) -> None:
    """Run points, each of which is on disk when ``on_done`` is called for it.

    Raises:
        ConfigError: If a file cannot be written or the executor cannot be used.
        SimulationError: If a worker process died.
    """
    folder, store = directory.resolve(), PointStore(directory)
    tasks = [delayed(run_point)(p, folder, full=options.full) for p in points]
    try:
        with workers(options.executor, options.jobs, len(tasks)) as parallel:
            for record in parallel(tasks):
                # a worker on another machine may see another disk
                if options.executor != LOCAL and store.get(record.key) is None:
                    store.put(record)
                on_done()
    except BrokenProcessPool as error:
        raise SimulationError(
            "a worker process died, perhaps for lack of memory; finished points are"
            " kept: run the same command again, with fewer --jobs"
        ) from error


def _known(store: PointStore, point: SweepPoint) -> Record:
    record = store.get(point.key)
    if record is None:
        raise ConfigError(f"{store.folder(point.key)}: vanished while the sweep ran")
    return record


def _write_parquet(path: Path, frame: pd.DataFrame) -> None:
    buffer = BytesIO()
    # a column of numbers and "inf" has no type in Parquet
    texts = [name for name in frame if frame[name].dtype == object]
    frame.astype(dict.fromkeys(texts, "string")).to_parquet(buffer, index=False)
    write_atomic(path, buffer.getvalue())
