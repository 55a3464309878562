"""``python -m tests.fuzz TARGET SEED`` runs one fuzzed input again."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.fuzz.harness import run_one


def main() -> None:
    """Run the input that the command line names; print what became of it."""
    target, seed = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(run_one(target, int(seed), Path(folder)) + "\n")


if __name__ == "__main__":
    main()
