"""Runs fuzzed inputs by seed; ``python -m tests.fuzz`` runs any one of them again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from sim.errors import ConfigError
from tests.fuzz.limits import limited
from tests.fuzz.targets import TARGETS

_LONGEST_MESSAGE = 1000


@dataclass
class Tally:
    """What became of the inputs of one session.

    Attributes:
        outcomes: (target, "accepted" or "refused") -> inputs.
        slowest_s: Processor time of the slowest input.
        slowest: Which it was.
        failures: One line per failed input.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest: str = ""
    failures: list[str] = field(default_factory=list)

    def line(self, seconds: float) -> str:
        """One line to print."""
        kinds = Counter[str]()
        for (_, outcome), count in self.outcomes.items():
            kinds[outcome] += count
        return (
            f"{self.outcomes.total()} fuzzed inputs in {seconds:.0f} s:"
            f" {kinds['accepted']} accepted, {kinds['refused']} refused,"
            f" {len(self.failures)} failed; slowest {self.slowest_s:.2f} s of CPU"
            f" ({self.slowest})"
        )


def inputs(count: int, first: int = 0) -> Iterable[tuple[str, int]]:
    """``count`` (target, seed) pairs, targets by their shares, spread evenly."""
    wheel = [name for name, (_, share) in TARGETS.items() for _ in range(share)]
    Random(0).shuffle(wheel)  # noqa: S311  (not for secrets)
    for seed in range(first, first + count):
        yield wheel[seed % len(wheel)], seed


def run_one(target: str, seed: int, folder: Path) -> str:
    """Feed one input to its reader; "accepted" or "refused".

    Raises:
        AssertionError: With one line that says how to run it again, if anything but
            ConfigError comes out, or its message is not one clear line.
    """
    function, _ = TARGETS[target]
    again = f"replay: python -m tests.fuzz {target} {seed}"
    try:
        with limited():
            function(Random(f"{target}/{seed}"), folder)  # noqa: S311
    except ConfigError as error:
        message = str(error)
        if not message.isprintable() or not 0 < len(message) < _LONGEST_MESSAGE:
            raise AssertionError(f"{again}: message {message!r}") from error
        return "refused"
    except Exception as error:
        shown = f"{type(error).__name__}: {error}"[:300]
        raise AssertionError(f"{again}: {shown}") from error
    return "accepted"


def run_many(pairs: Iterable[tuple[str, int]], folder: Path) -> Tally:
    """Feed inputs one after the other; goes on after a failure."""
    tally = Tally()
    for target, seed in pairs:
        start = time.process_time()
        try:
            tally.outcomes[target, run_one(target, seed, folder)] += 1
        except AssertionError as error:
            tally.outcomes[target, "failed"] += 1
            tally.failures.append(" ".join(str(error).split()))
        seconds = time.process_time() - start
        if seconds > tally.slowest_s:
            tally.slowest_s, tally.slowest = seconds, f"{target} {seed}"
    return tally
