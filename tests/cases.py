"""How many random cases a property test runs, and how many have passed."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine

LONG_FACTOR = 26
"""Cases of the long suite per case of the normal one."""
LONG_FLOOR = 100_000
"""Property cases the whole long suite must have run."""

MUTANT = "MUTANT_UNDER_TEST"
"""In the environment of tests of a mutant, where that one fails is all to be known."""

_DEFAULT_CASES = 30
_SCRIPTS = ("sim.worked_studies", "sim.__main__")  # what runs when it is imported
_counter = {"passed": 0}


def load_profile(*, long: bool) -> None:
    """The normal suite repeats its cases; the long one draws new ones from a seed.

    A case that kills a mutant is not made smaller, which takes most of the time.
    """
    quick = (Phase.explicit, Phase.generate)
    settings.register_profile(
        "servescope",
        max_examples=_DEFAULT_CASES * (LONG_FACTOR if long else 1),
        derandomize=not long,
        deadline=None,  # speed is measured in benchmarks
        suppress_health_check=[HealthCheck.too_slow],
        database=None,  # the seed alone replays a failure
        print_blob=True,
        phases=quick if MUTANT in os.environ else tuple(Phase),
    )
    settings.load_profile("servescope")


def load_constants() -> None:
    """Import the whole project, so that a seed draws the same whatever else is tested.

    Hypothesis also draws constants that stand in the modules imported so far.
    """
    for package in ("sim", "workloads", "calibration", "reports"):
        found = import_module(package)
        for module in pkgutil.walk_packages(found.__path__, f"{package}."):
            if not module.name.startswith(_SCRIPTS):
                import_module(module.name)


def cases(quick: int) -> settings:
    """Settings of a property test with ``quick`` cases in the normal suite."""
    return settings(
        max_examples=quick * settings.default.max_examples // _DEFAULT_CASES
    )


def passed_cases() -> int:
    """Cases that have passed in this process."""
    return _counter["passed"]


def counted(test: Callable[..., Any]) -> Callable[..., Any]:
    """The test of one case, which also counts it when it passes."""

    @wraps(test)
    def count(*args: object, **kwargs: object) -> None:
        test(*args, **kwargs)
        _counter["passed"] += 1

    count.is_counted = True  # type: ignore[attr-defined]
    return count


class CountedMachine(RuleBasedStateMachine):
    """A state machine each of whose programs counts as one case."""

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            _counter["passed"] += 1
