"""A floor under the number of collected tests, so that none goes missing in silence.

A test file that cannot be imported is an error to pytest, but one that is no longer
found, or whose tests lost their names, is not. ``python -m tests.floor`` prints both
numbers; a run of the whole suite checks them itself (conftest.py).
"""

from __future__ import annotations

import re
import subprocess
import sys

FLOOR = 5600
"""Raise it when tests are added; lower it in a commit that says which tests went."""


def complaint(collected: int) -> str | None:
    """What is wrong with so many tests, or None."""
    if collected >= FLOOR:
        return None
    return (
        f"{collected} tests collected, fewer than the floor of {FLOOR} (tests/floor.py)"
    )


def main() -> int:
    """Collect every test and compare; 0 if there are enough."""
    words = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-m", ""]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    collected = sum(map(int, re.findall(r"^\S+\.py: ([0-9]+)$", done.stdout, re.M)))
    wrong = complaint(collected)
    if done.returncode or wrong:
        sys.stderr.write(wrong or done.stdout + done.stderr)
        return 1
    sys.stdout.write(f"{collected} tests collected; the floor is {FLOOR}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
