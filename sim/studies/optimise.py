"""Multi-objective search of a large space with Optuna.

The optimiser proposes, points run as in a sweep. Proposals depend on the seed and on
the results told so far only, and are told in the order proposed, in rounds of a fixed
size: the same command proposes the same points again and finds in the folder those
that had run. So a search needs no state of its own to go on after any death, and its
result does not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from reports.points import objective, values_of
from sim.build import check_registered
from sim.errors import ConfigError
from sim.files import write_csv_atomic
from sim.studies.axes import LOG, Axis, Listed
from sim.studies.design import Settings
from sim.studies.key import point_key
from sim.studies.store import PointStore, Record, only_writer
from sim.studies.study import Space
from sim.studies.sweep import (
    POINTS_FILE,
    SweepOptions,
    SweepPlan,
    points_frame,
    run_points,
    value_of,
)
from sim.studies.worker import SweepPoint

if TYPE_CHECKING:
    import optuna

ROUND: Final = 8
"""Points proposed before any of them is told; a constant, for determinism."""
_OBJECTIVES: Final = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Optimisation:
    """How a space is searched.

    Attributes:
        metrics: One to three, see :func:`reports.points.objective`.
        trials: Points to propose.
        seed: Of the optimiser.
        options: How points run.
    """

    metrics: tuple[str, ...]
    trials: int = 100
    seed: int = 0
    options: SweepOptions = field(default_factory=SweepOptions)


def optimise(
    space: Space,
    directory: Path,
    search: Optimisation,
    on_done: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Search a space; write and return a table of points as a sweep's.

    Points that fail or whose queue grows are told to the optimiser as failed.

    Args:
        space: What may be chosen.
        directory: Where points and ``points.csv`` go.
        search: How.
        on_done: Called as each point is told.

    Raises:
        ConfigError: If the extra ``optimise`` is not installed, a metric is unknown
            or a file cannot be written.
    """
    if len(search.metrics) not in _OBJECTIVES:
        raise ConfigError("--metrics: must be one to three")
    study = _optuna_study(search)
    store = PointStore(directory)
    plan: dict[str, tuple[SweepPoint, Settings, Record]] = {}
    with only_writer(directory):
        store.clean()
        for first in range(0, search.trials, ROUND):
            count = min(ROUND, search.trials - first)
            trials = [study.ask() for _ in range(count)]
            points = [_point(space, trial) for trial in trials]
            missing = {p.key: p for p in points if p and store.get(p.key) is None}
            if missing:
                run_points(list(missing.values()), directory, search.options)
            for trial, point in zip(trials, points, strict=True):
                record = store.get(point.key) if point else None
                _tell(study, trial, record, search.metrics)
                on_done()
                if point and record and point.key not in plan:
                    settings = {k: value_of(point.config, k) for k in space.axes}
                    plan[point.key] = (point, settings, record)
        if not plan:
            raise ConfigError("no point of the space is allowed")
        points_, settings_, records = zip(*plan.values(), strict=True)
        frame = points_frame(SweepPlan(points_, settings_), records)
        write_csv_atomic(directory / POINTS_FILE, frame)
    return frame


def _optuna_study(search: Optimisation) -> optuna.Study:
    try:
        import optuna  # noqa: PLC0415  (an extra)
    except ImportError:
        raise ConfigError(
            "optimise: needs the extra servescope[optimise]"
            " (pip install 'servescope[optimise]')"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    empty = pd.DataFrame({name.partition(":")[0]: [0.0] for name in search.metrics})
    direction = optuna.study.StudyDirection
    directions = [
        direction.MINIMIZE if objective(name, empty).minimise else direction.MAXIMIZE
        for name in search.metrics
    ]
    sampler = optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=2 * ROUND)
    return optuna.create_study(directions=directions, sampler=sampler)


def _point(space: Space, trial: optuna.Trial) -> SweepPoint | None:
    """The point of a proposal; None where keys contradict each other."""
    settings = {key: _suggest(trial, key, axis) for key, axis in space.axes.items()}
    try:
        config = space.study.config(settings, check_registered)
    except ConfigError:
        # one key alone is a slip of the study, keys together are a corner of the space
        for key, value in settings.items():
            space.study.config({key: value}, check_registered)
        return None
    return SweepPoint(point_key(config), config)


def _suggest(trial: optuna.Trial, key: str, axis: Axis) -> Any:
    if isinstance(axis, Listed):
        choices: list[Any] = [*axis.values]
        return trial.suggest_categorical(key, choices)
    if axis.whole:
        step = int(axis.step) if axis.step else 1
        return trial.suggest_int(
            key, int(axis.low), int(axis.high), step=step, log=axis.scale == LOG
        )
    return trial.suggest_float(
        key, axis.low, axis.high, step=axis.step, log=axis.scale == LOG
    )


def _tell(
    study: optuna.Study,
    trial: optuna.Trial,
    record: Record | None,
    metrics: Sequence[str],
) -> None:
    from optuna.trial import TrialState  # noqa: PLC0415  (an extra)

    if record is None or record.summary is None:
        study.tell(trial, state=TrialState.FAIL)
        return
    frame = pd.DataFrame([record.summary])
    values = values_of(frame, tuple(objective(name, frame) for name in metrics))[0]
    if pd.isna(values).any():
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, values.tolist())
