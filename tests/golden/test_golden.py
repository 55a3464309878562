"""Golden runs: the same predictions as committed, whatever ran before and where."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.results import write_run
from sim.schedulers import SCHEDULERS
from tests.golden.runs import COMMAND, FINGERPRINTS, GOLDEN, fingerprint, golden_run

COMMITTED = json.loads(FINGERPRINTS.read_text())


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_predictions_are_as_committed(name: str) -> None:
    """See the module :mod:`tests.golden.runs` for what to do when they should not."""
    found = fingerprint(golden_run(name))
    assert found == COMMITTED[name], f"predictions changed; if meant to: {COMMAND}"


def test_every_scheduler_has_a_golden_run() -> None:
    """And every fingerprint its run."""
    assert set(COMMITTED) == set(GOLDEN)
    assert {name.split(",")[0] for name in GOLDEN} == set(SCHEDULERS)


def test_golden_runs_differ() -> None:
    """Two equal fingerprints would mean that an option does nothing."""
    hashes = {numbers["sha256"] for numbers in COMMITTED.values()}
    assert len(hashes) == len(COMMITTED)


def written(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of every file of these runs, run in this order in one process."""
    for name in names:
        write_run(folder / name, golden_run(name), iterations=True)
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.long
def test_order_of_runs_does_not_matter(tmp_path: Path) -> None:
    """Same bytes in every file forwards, backwards and after a run of each."""
    names = sorted(GOLDEN)[::3]
    first = written(tmp_path / "forwards", names)
    assert len(first) == 6 * len(names)
    assert written(tmp_path / "backwards", names[::-1]) == first


@pytest.mark.long
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PYTHONHASHSEED", "0"),
        ("PYTHONHASHSEED", "1"),
        # Older processors: other code paths of numpy, libm and OpenBLAS.
        ("NPY_DISABLE_CPU_FEATURES", "X86_V3 X86_V4"),
        ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-FMA,-FMA_Usable"),
        ("OPENBLAS_CORETYPE", "Haswell"),
    ],
)
def test_environment_does_not_matter(key: str, value: str, tmp_path: Path) -> None:
    """Predictions as committed under any hash seed and on lesser processors."""
    file = tmp_path / "fingerprints.json"
    subprocess.run(
        [sys.executable, "-m", "tests.golden.runs", str(file)],
        env={**os.environ, key: value},
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert json.loads(file.read_text()) == COMMITTED
