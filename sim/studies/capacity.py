"""Highest request rate that meets a target, with an interval over seeds.

Each seed is searched on its own: bracketing, bisection, interpolation. A seed's
requests are the same at every rate, only closer together (common random numbers), so
its curve has one crossing and little noise; what is left, the chance of the draw, is
what a Student-t interval over independent seeds tells. Seeds are added until that
interval is narrow enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
from joblib import delayed

from sim.build import build_workload_of, check_registered
from sim.config import Config
from sim.config_errors import ConfigKeyError
from sim.config_fields import MAX_RATE, MIN_RATE
from sim.errors import ConfigError
from sim.files import write_csv_atomic
from sim.statistics import Interval, mean_interval
from sim.studies.executors import LOCAL, workers
from sim.studies.key import point_key
from sim.studies.store import PointStore, Record, only_writer
from sim.studies.target import Target
from sim.studies.worker import SweepPoint, run_point

CAPACITY_FILE: Final = "capacity.csv"
EVALUATIONS_FILE: Final = "evaluations.csv"
FIRST_SEEDS: Final = 3
_MORE_SEEDS: Final = 2
_STEP: Final = 1.5  # of bracketing
_NEAR: Final = 1.1  # of bracketing around the rate of earlier seeds
_LONGEST: Final = 16.0
_MOST_STEPS: Final = 18  # 1.5 ** 18 is over a thousand times the first guess


@dataclass(frozen=True, slots=True)
class Search:
    """How a capacity is searched.

    Attributes:
        tolerance: Of the bisection and of the interval's half width, as a share.
        max_seeds: The most seeds.
        jobs: Workers; None for all there are.
        executor: See :func:`sim.studies.executors.workers`.
    """

    tolerance: float = 0.02
    max_seeds: int = 9
    jobs: int | None = None
    executor: str = LOCAL


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One run of a search."""

    seed: int
    rate: float
    slack: float
    record: Record


@dataclass(frozen=True, slots=True)
class SeedCapacity:
    """The crossing of one seed.

    Attributes:
        seed: Which.
        rate: Requests per second at which the target is just met; 0 if it is not at
            any rate, infinite if it is at every rate tried.
        evaluations: Its runs, by rate.
    """

    seed: int
    rate: float
    evaluations: tuple[Evaluation, ...]

    @property
    def best(self) -> Evaluation | None:
        """The run at the highest rate that met the target."""
        met = [e for e in self.evaluations if e.slack >= 0]
        return max(met, key=lambda e: e.rate) if met else None


@dataclass(frozen=True, slots=True)
class Capacity:
    """The result of a search.

    Attributes:
        rate: Requests per second, mean and 95 % interval over seeds.
        seeds: Each seed's crossing.
        unstable: Seeds whose queue still grew at the highest rate that met the target:
            the rate holds for runs of this length only.
    """

    rate: Interval
    seeds: tuple[SeedCapacity, ...]
    unstable: int

    @property
    def runs(self) -> int:
        """How many simulations it took."""
        return sum(len(seed.evaluations) for seed in self.seeds)

    def at_capacity(self, metric: str) -> Interval:
        """A metric of the best runs, mean and interval over seeds."""
        best = [seed.best for seed in self.seeds]
        values = [b.record.summary[metric] for b in best if b and b.record.summary]
        return mean_interval([math.nan if v is None else v for v in values])


def find_capacity(
    config: Config,
    target: Target,
    directory: Path,
    search: Search | None = None,
    on_seed: Callable[[SeedCapacity], None] = lambda _: None,
) -> Capacity:
    """Search the highest request rate of a configuration.

    Runs are points of the folder, so a search that died goes on where it was.

    Args:
        config: What to load; its own rate is the first guess, its seed the first.
        target: What must be met.
        directory: Where runs, ``capacity.csv`` and ``evaluations.csv`` go.
        search: How.
        on_seed: Called as each seed is done.

    Raises:
        ConfigError: If the configuration cannot run or has no rate to search.
    """
    search = search or Search()
    _check_rate(config)
    check_registered(config)
    found: list[SeedCapacity] = []
    with only_writer(directory):
        PointStore(directory).clean()
        while not _enough(found, search):
            first = config.seed + len(found)
            count = _MORE_SEEDS if found else FIRST_SEEDS
            count = min(count, search.max_seeds - len(found))
            guess = _guess(config, found)
            tasks = [
                delayed(search_seed)(
                    config, seed, target, directory.resolve(), *guess, search.tolerance
                )
                for seed in range(first, first + count)
            ]
            with workers(search.executor, search.jobs, count) as parallel:
                for seed in parallel(tasks):
                    found.append(seed)
                    on_seed(seed)
            found.sort(key=lambda seed: seed.seed)
        result = _capacity(found)
        write_csv_atomic(directory / CAPACITY_FILE, _seed_frame(found))
        write_csv_atomic(directory / EVALUATIONS_FILE, evaluations_frame(found))
    return result


def search_seed(
    config: Config,
    seed: int,
    target: Target,
    directory: Path,
    guess: float,
    step: float,
    tolerance: float,
) -> SeedCapacity:
    """Search the crossing of one seed.

    Args:
        config: What to load.
        seed: Of every random stream.
        target: What must be met.
        directory: Where runs go.
        guess: Rate to start from.
        step: Factor of bracketing.
        tolerance: Width of the last bracket, as a share of its lower end.

    Raises:
        ConfigError: If the configuration cannot run at all.
    """
    runs: dict[float, Evaluation] = {}

    def slack(rate: float) -> float:
        if rate not in runs:
            runs[rate] = evaluate(config, seed, rate, target, directory)
        return runs[rate].slack

    low, high = _bracket(slack, guess, step)
    while 0 < low < high < math.inf and high / low - 1 > tolerance:
        middle = round_rate(math.sqrt(low * high))
        if middle in (low, high):
            break
        low, high = (middle, high) if slack(middle) >= 0 else (low, middle)
    if 0 < low < high < math.inf:
        crossing = low + (high - low) * _share(slack(low), slack(high))
    else:
        crossing = 0.0 if low == 0 else math.inf
    ordered = tuple(runs[rate] for rate in sorted(runs))
    return SeedCapacity(seed, crossing, ordered)


def evaluate(
    config: Config, seed: int, rate: float, target: Target, directory: Path
) -> Evaluation:
    """Run one rate of one seed, or take it from the folder.

    Raises:
        ConfigError: If it cannot run.
    """
    workload = config.workload.model_copy(update={"request_rate": rate})
    at_rate = config.model_copy(update={"seed": seed, "workload": workload})
    point = SweepPoint(point_key(at_rate), at_rate)
    record = PointStore(directory).get(point.key) or run_point(point, directory)
    if not record.ok:
        raise ConfigError(f"at {rate:g} req/s: {record.error}")
    return Evaluation(seed, rate, target.slack(record), record)


def round_rate(rate: float) -> float:
    """Four significant figures: finer than any answer, and equal rates stay equal."""
    return float(f"{rate:.4g}")


def evaluations_frame(seeds: Sequence[SeedCapacity]) -> pd.DataFrame:
    """Every run: seed, request_rate, slack, met, unstable and the target's metrics."""
    rows = []
    for e in (e for seed in seeds for e in seed.evaluations):
        summary: dict[str, Any] = e.record.summary or {}
        rows.append(
            {
                "seed": e.seed,
                "request_rate": e.rate,
                "slack": e.slack,
                "met": e.slack >= 0,
                "unstable": summary.get("unstable"),
                "slo_attainment": summary.get("slo_attainment"),
                "key": e.record.key,
            }
        )
    return pd.DataFrame(rows)


def _check_rate(config: Config) -> None:
    closed = config.workload.max_concurrency is not None
    if closed or build_workload_of(config).offered_rate is None:
        raise ConfigKeyError(
            "workload",
            "a closed loop" if closed else "a timed trace",
            "leaves no rate to search; --min-replicas works for it",
        )


def _guess(config: Config, found: Sequence[SeedCapacity]) -> tuple[float, float]:
    """Where to start, and the factor of the first steps."""
    known = [seed.rate for seed in found if 0 < seed.rate < math.inf]
    if known:
        return round_rate(math.fsum(known) / len(known)), _NEAR
    rate = config.workload.request_rate
    return (round_rate(rate) if math.isfinite(rate) else 1.0), _STEP


def _bracket(
    slack: Callable[[float], float], guess: float, step: float
) -> tuple[float, float]:
    """A rate that meets the target and the next one tried, which does not.

    (0, rate) if none meets it, (rate, infinity) if all do.
    """
    rate, met = guess, slack(guess) >= 0
    for _ in range(_MOST_STEPS):
        following = round_rate(rate * step if met else rate / step)
        if not MIN_RATE <= following <= MAX_RATE:
            break
        if (slack(following) >= 0) != met:
            return (rate, following) if met else (following, rate)
        # downwards ever faster: low rates cost little, high ones send many requests
        rate, step = following, _STEP if met else min(max(step, _STEP) ** 2, _LONGEST)
    return (rate, math.inf) if met else (0.0, rate)


def _share(low: float, high: float) -> float:
    """Where between two rates the slack crosses zero, taken as straight."""
    return low / (low - high) if math.isfinite(high) and low > high else 0.0


def _enough(found: Sequence[SeedCapacity], search: Search) -> bool:
    if len(found) >= search.max_seeds:
        return True
    if len(found) < min(FIRST_SEEDS, search.max_seeds):
        return False
    rates = [seed.rate for seed in found]
    if not all(0 < rate < math.inf for rate in rates):
        return True  # more seeds do not mend a target out of reach
    interval = mean_interval(rates)
    return interval.half_width <= search.tolerance * interval.estimate


def _capacity(found: Sequence[SeedCapacity]) -> Capacity:
    rates = [seed.rate for seed in found]
    if all(0 < rate < math.inf for rate in rates):
        interval = mean_interval(rates)
    else:
        worst = min(rates)
        interval = Interval(worst, math.nan, math.nan, len(rates))
    best = [seed.best for seed in found]
    unstable = sum(bool(b and (b.record.summary or {})["unstable"]) for b in best)
    return Capacity(interval, tuple(found), unstable)


def _seed_frame(found: Sequence[SeedCapacity]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "seed": seed.seed,
                "capacity_req_s": seed.rate,
                "highest_met_req_s": seed.best.rate if seed.best else math.nan,
                "runs": len(seed.evaluations),
            }
            for seed in found
        ]
    )
