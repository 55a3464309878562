"""The kill rate of ``mutmut run`` by module, and whether it is good enough.

``python -m tests.mutation.gate`` reads ``mutmut results --all true``. A mutant is
killed by a failing test or a timeout.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter, defaultdict

LEAST_RUN = 500
LEAST_KILLED = 0.9
_LINE = re.compile(r"^ *(?P<name>\S+__mutmut_[0-9]+): (?P<status>.+?) *$", re.MULTILINE)
_KILLED = ("killed", "timeout", "segfault")
_RAN = (*_KILLED, "survived", "suspicious", "no tests")


class GateError(Exception):
    """The mutation run is not good enough, or was none."""


def report(results: str) -> str:
    """A line per module and one for all.

    Args:
        results: What ``mutmut results --all true`` printed.

    Raises:
        GateError: If too few mutants ran (none, after a broken set-up), some are still
            unchecked, or too few were killed.
    """
    modules: dict[str, Counter[str]] = defaultdict(Counter)
    for match in _LINE.finditer(results):
        module = match["name"].rpartition(".")[0]
        modules[module][match["status"]] += 1
    total = sum(modules.values(), Counter[str]())
    ran, killed = _ran(total), _killed(total)
    if ran < LEAST_RUN:
        raise GateError(f"{ran} mutants ran; at least {LEAST_RUN} must")
    if ran < total.total():
        raise GateError(f"{total.total() - ran} mutants were not run")
    if killed < LEAST_KILLED * ran:
        raise GateError(f"{killed} of {ran} mutants killed, under {LEAST_KILLED:.0%}")
    rows = [*sorted(modules.items()), ("all", total)]
    return "".join(
        f"{name}: {_killed(counts)} of {_ran(counts)} killed"
        f" ({_killed(counts) / _ran(counts):.1%})\n"
        for name, counts in rows
    )


def _ran(counts: Counter[str]) -> int:
    return sum(counts[status] for status in _RAN)


def _killed(counts: Counter[str]) -> int:
    return sum(counts[status] for status in _KILLED)


def main() -> int:
    """Print the report; 1 if the run is not good enough."""
    words = ["mutmut", "results", "--all", "true"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        sys.stdout.write(report(done.stdout))
    except GateError as error:
        sys.stderr.write(f"{error}\n{done.stderr}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
