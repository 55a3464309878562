"""What a page is about: the runs below a directory, read and checked."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from reports.frame import BASELINE, CANDIDATE, COMPARE_FILE, policy_order, read_table
from reports.tradeoff import TRADEOFF_FILE
from sim.config_errors import one_line
from sim.errors import ConfigError

RESULT_FILE: Final = "result.json"
PAIRED_FILE: Final = "paired.csv"
_CONFIG_FILE: Final = "config.toml"
_NEEDED: Final = (
    *("model_id", "scheduler", "gpu", "num_gpus", "dataset", "profile", "duration"),
    *("request_rate", "max_concurrency", "config_sha256", "completed", "version"),
    *("mean_ttft_ms", "mean_itl_ms", "mean_e2el_ms", "energy_j", "hbm_bytes"),
)

Summary = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated configuration.

    Attributes:
        folder: Where its files are.
        summary: ``result.json``.
        config: ``config.toml``, its keys joined by dots.
        name: What tells it from the others of its study.
        load: What its users do, in words.
    """

    folder: Path
    summary: Summary
    config: dict[str, Any]
    name: str
    load: str

    @property
    def scheduler(self) -> str:
        """Its policy."""
        return str(self.summary["scheduler"])

    def table(self, file: str) -> pd.DataFrame | None:
        """A table beside ``result.json``; None where the run did not write it.

        Raises:
            ConfigError: If it is not a readable table.
        """
        path = self.folder / file
        return read_table(path) if path.exists() else None


@dataclass(frozen=True, slots=True)
class Study:
    """Runs that belong together.

    Attributes:
        title: Its directory.
        runs: All runs, in the order they are compared.
        compared: Those that differ in policy and load only; all runs where there is
            no ``compare.csv``.
        paired: ``paired.csv``, or an empty frame.
    """

    title: str
    runs: tuple[Run, ...]
    compared: tuple[Run, ...]
    paired: pd.DataFrame

    @property
    def policies(self) -> list[str]:
        """Schedulers compared, the known ones first."""
        return policy_order(
            pd.DataFrame({"scheduler": [r.name for r in self.compared]})
        )

    @property
    def loads(self) -> list[str]:
        """Loads compared, in their order."""
        return list(dict.fromkeys(run.load for run in self.compared))

    @property
    def baseline(self) -> str:
        """The policy that others are compared with."""
        names = self.policies
        return BASELINE if BASELINE in names else names[0]

    @property
    def candidate(self) -> str | None:
        """The policy that is compared, or None where there is one only."""
        names = [name for name in self.policies if name != self.baseline]
        return CANDIDATE if CANDIDATE in names else next(iter(names), None)

    @property
    def headline(self) -> str:
        """The load shown first: that of the trade-off, else the median one."""
        extra = [run for run in self.runs if run not in self.compared]
        loads = [run.load for run in extra if run.load in self.loads] or self.loads
        return loads[(len(loads) - 1) // 2]

    def run(self, name: str, load: str) -> Run | None:
        """The compared run of a policy at a load."""
        for run in self.compared:
            if (run.name, run.load) == (name, load):
                return run
        return None


def needed_table(run: Run, file: str) -> pd.DataFrame:
    """A table beside ``result.json`` that cannot be done without.

    Raises:
        ConfigError: If it is missing or not a readable table.
    """
    return read_table(run.folder / file)


def read_study(directories: Sequence[Path]) -> Study:
    """Read a comparison, or runs to lay side by side.

    Args:
        directories: One directory that ``servescope compare`` wrote, or any number
            that ``servescope run`` wrote.

    Raises:
        ConfigError: If a directory holds neither, or a file is malformed.
    """
    first = directories[0]
    if len(directories) == 1 and (first / COMPARE_FILE).exists():
        return _comparison(first)
    for directory in directories:
        if not (directory / RESULT_FILE).exists():
            raise ConfigError(
                f"{one_line(str(directory))}: no {RESULT_FILE} and no {COMPARE_FILE};"
                " expected a directory that servescope run or compare wrote"
            )
    runs = tuple(_named([_run(directory) for directory in directories]))
    return Study(_title(first), runs, runs, pd.DataFrame())


def _title(directory: Path) -> str:
    return directory.resolve().name


def _comparison(directory: Path) -> Study:
    frames = [read_table(directory / COMPARE_FILE)]
    if (directory / TRADEOFF_FILE).exists():
        frames.append(read_table(directory / TRADEOFF_FILE))
    for frame in frames:
        if "config_sha256" not in frame or frame.empty:
            raise ConfigError(f"{directory / COMPARE_FILE}: no column config_sha256")
    known = {run.summary["config_sha256"]: run for run in _found(directory)}
    wanted = [list(dict.fromkeys(frame["config_sha256"])) for frame in frames]
    every = dict.fromkeys(sha for shas in wanted for sha in shas)
    missing = [sha for sha in every if sha not in known]
    if missing:
        raise ConfigError(
            f"{one_line(str(directory))}: {len(missing)} of its runs have no"
            f" {RESULT_FILE}; run `servescope compare` again"
        )
    compared = tuple(known[sha] for sha in wanted[0])
    paired = directory / PAIRED_FILE
    return Study(
        _title(directory),
        tuple(known[sha] for sha in every),
        compared,
        read_table(paired) if paired.exists() else pd.DataFrame(),
    )


def _found(directory: Path) -> Iterator[Run]:
    for path in sorted(directory.glob(f"*/**/{RESULT_FILE}")):
        yield _run(path.parent)


def _named(runs: Sequence[Run]) -> Iterator[Run]:
    """Runs by their policy, or by their folder where two share policy and load."""
    names = [(run.name, run.load) for run in runs]
    clash = len(set(names)) < len(names)
    taken: dict[str, int] = {}
    for run in runs:
        name = _title(run.folder) if clash else run.name
        taken[name] = taken.get(name, 0) + 1
        if clash and taken[name] > 1:
            name = f"{name} ({taken[name]})"
        yield Run(run.folder, run.summary, run.config, name, run.load)


def _run(folder: Path) -> Run:
    path = folder / RESULT_FILE
    summary = check_summary(_json(path), path)
    config = dict(flat(_toml(folder / _CONFIG_FILE)))
    return Run(folder, summary, config, str(summary["scheduler"]), load_text(summary))


def check_summary(summary: Summary, path: Path) -> Summary:
    """The summary, if it holds what every page needs.

    Raises:
        ConfigError: If a key is missing.
    """
    if missing := [key for key in _NEEDED if key not in summary]:
        raise ConfigError(f"{path}: missing key(s) {', '.join(missing)}")
    return summary


def load_text(summary: Summary) -> str:
    """What the users of a run do, in words."""
    if summary["max_concurrency"] is not None:
        return f"{summary['max_concurrency']} clients"
    rate = summary["request_rate"]
    if rate is None:
        return "times of the trace"
    rate = float(rate)
    return f"{rate:g} req/s" if math.isfinite(rate) else "all at once"


def _json(path: Path) -> Summary:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return document


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or str(error)
    return ConfigError(f"{one_line(str(path))}: cannot be read: {one_line(reason)}")


def flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of nested tables joined by dots, and their values."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
