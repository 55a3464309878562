"""One run of a comparison: what runs, and where its files go."""

from __future__ import annotations

from dataclasses import dataclass

from sim.config import Config


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a comparison.

    Attributes:
        scheduler: Its policy.
        load: What the users do, as a folder name: "rate-1.30", "concurrency-8" or
            "trace".
        folder: Where its files go, below the directory of the comparison.
        config: All of it.
    """

    scheduler: str
    load: str
    folder: str
    config: Config
