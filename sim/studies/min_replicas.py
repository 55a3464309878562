"""Fewest replicas that meet a target for a load: a rate, a trace or users."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd
from joblib import delayed

from sim.build import check_registered
from sim.config import Config
from sim.config_pipeline import nodes_for
from sim.errors import ConfigError
from sim.files import write_csv_atomic
from sim.statistics import Interval, mean_interval
from sim.studies.capacity import EVALUATIONS_FILE, Evaluation, Search, evaluate
from sim.studies.executors import workers
from sim.studies.store import PointStore, only_writer
from sim.studies.target import Target

MAX_REPLICAS: Final = 1024


@dataclass(frozen=True, slots=True)
class Size:
    """A number of replicas that was tried.

    Attributes:
        replicas: How many.
        slack: Mean and interval over seeds of how far the target was met.
        runs: One evaluation per seed.
    """

    replicas: int
    slack: Interval
    runs: tuple[Evaluation, ...]

    @property
    def met(self) -> bool:
        """Whether the target is met on average over seeds."""
        return self.slack.estimate >= 0

    @property
    def sure(self) -> bool:
        """Whether the interval agrees, so that other seeds would hardly tell else."""
        return not self.slack.low < 0 <= self.slack.high

    @property
    def unstable(self) -> bool:
        """Whether the queue grew in any run."""
        return any((run.record.summary or {})["unstable"] for run in self.runs)

    def metric(self, name: str) -> Interval:
        """A metric of ``result.json``, mean and interval over seeds."""
        values = [(run.record.summary or {})[name] for run in self.runs]
        return mean_interval([math.nan if v is None else v for v in values])


@dataclass(frozen=True, slots=True)
class MinReplicas:
    """The result: the smallest size that met the target, and all that were tried."""

    best: Size | None
    tried: tuple[Size, ...]


def find_min_replicas(
    config: Config, target: Target, directory: Path, search: Search | None = None
) -> MinReplicas:
    """Search the fewest replicas; nodes are added as they need.

    Doubling finds a size that is large enough, bisection the smallest such, taking
    for granted that more replicas are no worse. Sizes see the same requests; at each,
    seeds are added while the interval of the slack spans zero.

    Args:
        config: The load and one replica.
        target: What must be met.
        directory: Where runs and ``evaluations.csv`` go.
        search: How; its tolerance is not used.

    Raises:
        ConfigError: If the configuration cannot run, or has pools.
    """
    search = search or Search()
    check_registered(config)
    if config.pools:
        raise ConfigError(
            "the fewest replicas of pools are not searched; allowed: without [pools],"
            " or a sweep over pools.NAME.replicas"
        )
    tried: dict[int, Size] = {}

    def met(replicas: int) -> bool:
        if replicas not in tried:
            tried[replicas] = _size(config, replicas, target, directory, search)
        return tried[replicas].met

    with only_writer(directory):
        PointStore(directory).clean()
        high = 1
        while not met(high) and high < MAX_REPLICAS:
            high *= 2
        low = high // 2 if high > 1 else 0
        while met(high) and high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if met(middle) else (middle, high)
        ordered = tuple(tried[n] for n in sorted(tried))
        write_csv_atomic(directory / EVALUATIONS_FILE, sizes_frame(ordered))
    return MinReplicas(tried[high] if tried[high].met else None, ordered)


def sized(config: Config, replicas: int) -> Config:
    """The configuration with so many replicas, and nodes for them."""
    needed = nodes_for(config.parallel, replicas, config.cluster.gpus_per_node)
    nodes = max(config.cluster.nodes, needed)
    return config.model_copy(
        update={
            "cluster": config.cluster.model_copy(update={"nodes": nodes}),
            "parallel": config.parallel.model_copy(update={"replicas": replicas}),
        }
    )


def sizes_frame(sizes: tuple[Size, ...]) -> pd.DataFrame:
    """Every run: replicas, seed, slack, unstable, slo_attainment, key."""
    return pd.DataFrame(
        [
            {
                "replicas": size.replicas,
                "seed": run.seed,
                "slack": run.slack,
                "unstable": (run.record.summary or {})["unstable"],
                "slo_attainment": (run.record.summary or {})["slo_attainment"],
                "key": run.record.key,
            }
            for size in sizes
            for run in size.runs
        ]
    )


def _size(
    config: Config, replicas: int, target: Target, directory: Path, search: Search
) -> Size:
    at_size, runs = sized(config, replicas), list[Evaluation]()
    rate, folder = config.workload.request_rate, directory.resolve()
    while True:
        first = config.seed + len(runs)
        count = min(1 if runs else 3, search.max_seeds - len(runs))
        tasks = [
            delayed(evaluate)(at_size, seed, rate, target, folder)
            for seed in range(first, first + count)
        ]
        with workers(search.executor, search.jobs, count) as parallel:
            runs += list(parallel(tasks))
        runs.sort(key=lambda run: run.seed)
        slacks = [run.slack for run in runs]
        interval = (
            mean_interval(slacks)
            if all(map(math.isfinite, slacks))
            else Interval(-math.inf, -math.inf, -math.inf, len(slacks))
        )
        size = Size(replicas, interval, tuple(runs))
        if size.sure or len(runs) >= search.max_seeds:
            return size
