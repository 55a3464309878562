"""What the worked studies share: their command line and their size."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from sim.studies.sweep import SweepOptions


@dataclass(frozen=True, slots=True)
class Size:
    """How long a worked study is.

    Attributes:
        duration_s: Seconds of arrivals per run.
        replications: Seeds.
        options: Workers and executor.
    """

    duration_s: float = 300.0
    replications: int = 3
    options: SweepOptions = field(default_factory=SweepOptions)


def parse(about: str, name: str) -> tuple[Path, Size]:
    """The folder and size of the command line."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--out", type=Path, default=Path(f"servescope-{name}"))
    parser.add_argument("--duration-s", type=float, default=300.0)
    parser.add_argument("--replications", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=None)
    given = parser.parse_args()
    options = SweepOptions(jobs=given.jobs)
    return given.out, Size(given.duration_s, given.replications, options)
