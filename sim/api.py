"""Python interface: run, compare, sweep, search and plot in a few lines.

Settings are values by dotted configuration key; results are pandas frames with the
keys of ``result.json``, figures Matplotlib axes::

    from sim.api import capacity, frontier, plot, run, sweep

    result = run({"workload.request_rate": 1.5})
    print(result.summary["mean_ttft_ms"], result.requests["ttft_ms"].quantile(0.9))

    points = sweep(
        {"engine.num_layer_groups": [4, 8, 16], "workload.request_rate": [1.2, 1.5]},
        settings={"workload.num_requests": 200},
        replications=3,
    )
    axes = plot(frontier(points, "ttft", "tbt", by="workload.request_rate"))
    axes.figure.savefig("frontier.png")

    print(capacity({"engine.scheduler": "chunked-prefill"}).rate)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from reports.figures.objectives import draw_objectives
from reports.frontier import Frontiers, frontiers
from reports.pareto_report import labels_of, title_of, varied_keys
from reports.points import averaged, objective
from reports.style import new_figure, paper_style
from sim.build import check_registered
from sim.config import Config
from sim.config_file import Layer, file_layer, load_config, nested
from sim.results import RunResult
from sim.runner import run_config
from sim.studies.capacity import Capacity, Search, find_capacity
from sim.studies.study import make_study
from sim.studies.sweep import SweepOptions, plan_sweep
from sim.studies.sweep import sweep as run_sweep
from sim.studies.target import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Settings = Mapping[str, Any]
_NONE: Final[Settings] = MappingProxyType({})
_POLICIES: Final = ("chunked-prefill", "layered-prefill")
_HEIGHT_IN: Final = 4.0


def config(settings: Settings = _NONE, path: Path | str | None = None) -> Config:
    """A configuration: settings over a file over the defaults.

    Raises:
        ConfigError: If a key or value is not allowed.
    """
    file = None if path is None else Path(path)
    return load_config(file, (), settings, check_registered)


def run(settings: Settings = _NONE, path: Path | str | None = None) -> RunResult:
    """Simulate one configuration.

    Args:
        settings: Values by dotted key, such as ``{"workload.request_rate": 1.5}``.
        path: Configuration file below them.

    Returns:
        ``summary`` (a dict), and frames ``requests``, ``timeseries``, ``iterations``.

    Raises:
        ConfigError: If it cannot run.
        SimulationError: If the scheduler breaks an invariant.
    """
    return run_config(config(settings, path))


def sweep(
    vary: Settings | Sequence[Settings],
    settings: Settings = _NONE,
    *,
    path: Path | str | None = None,
    replications: int = 1,
    out: Path | str | None = None,
    options: SweepOptions | None = None,
) -> pd.DataFrame:
    """Run many settings in parallel.

    Args:
        vary: As a ``[[vary]]`` block of a study file, or several: lists of values by
            dotted key, ranges as ``{"from": 1.0, "to": 2.0, "step": 0.1}``, and
            ``design`` where it is not a grid.
        settings: What all points share.
        path: Configuration file below them.
        replications: Seeds per point.
        out: Folder of the study, in which it can go on; None keeps nothing.
        options: Workers and executor.

    Returns:
        One row per point: ``key``, ``status``, ``error``, the varied keys, then the
        keys of ``result.json``.

    Raises:
        ConfigError: If a point is not allowed.
    """
    layers = [] if path is None else [file_layer(Path(path))]
    layers.append(Layer(nested(settings), "settings"))
    plan = plan_sweep(make_study(vary, layers, replications))
    with _folder(out) as folder:
        return run_sweep(plan, folder, options).points


def compare(
    rates: Sequence[float],
    settings: Settings = _NONE,
    *,
    schedulers: Sequence[str] = _POLICIES,
    out: Path | str | None = None,
) -> pd.DataFrame:
    """Policies against request rates, all on the same requests.

    Args:
        rates: Requests per second.
        settings: What all runs share.
        schedulers: Policies.
        out: Folder in which it can go on; None keeps nothing.

    Returns:
        As :func:`sweep`, one row per rate and policy. ``servescope compare`` also
        writes paired differences and figures.

    Raises:
        ConfigError: If a run is not allowed.
    """
    vary = {
        "workload.request_rate": list(rates),
        "engine.scheduler": list(schedulers),
    }
    return sweep(vary, settings, out=out)


def capacity(
    settings: Settings = _NONE,
    target: Target | None = None,
    *,
    path: Path | str | None = None,
    search: Search | None = None,
    out: Path | str | None = None,
) -> Capacity:
    """Highest request rate that meets a target, 90 % of requests within [slo].

    Args:
        settings: What to load; its rate is the first guess.
        target: What must be met.
        path: Configuration file below the settings.
        search: Tolerance, seeds and workers.
        out: Folder in which it can go on; None keeps nothing.

    Raises:
        ConfigError: If the configuration cannot run or has no rate.
    """
    with _folder(out) as folder:
        loaded = config(settings, path)
        return find_capacity(loaded, target or Target(), folder, search)


def frontier(points: pd.DataFrame, *metrics: str, by: str = "scheduler") -> Frontiers:
    """What no other point beats in two or three metrics; seeds are averaged.

    Args:
        points: As :func:`sweep` returns.
        metrics: Such as "ttft", "tbt"; see :func:`reports.points.objective`.
        by: Column that groups points.

    Raises:
        ConfigError: If a metric or the column is unknown.
    """
    good = points[points["status"] == "ok"].reset_index(drop=True)
    means = averaged(good, varied_keys(good))
    return frontiers(means, tuple(objective(name, means) for name in metrics), by)


def plot(found: Frontiers, axes: Axes | None = None) -> Axes:
    """Draw the first two metrics, with the frontier of each group.

    Args:
        found: See :func:`frontier`.
        axes: Where to; None makes a figure, ``axes.figure``.
    """
    with paper_style():
        if axes is None:
            axes = new_figure(_HEIGHT_IN, title_of(found)).add_subplot()
        draw_objectives(axes, found, labels_of(found))
        axes.legend()
    return axes


@contextmanager
def _folder(out: Path | str | None) -> Iterator[Path]:
    if out is not None:
        yield Path(out)
        return
    with TemporaryDirectory(prefix="servescope-") as name:
        yield Path(name)
