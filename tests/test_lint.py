"""The linter refuses code that could run what it reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOSTILE = {
    "import pickle": "TID251",
    "import marshal": "TID251",
    "from shelve import open": "TID251",
    "import random": "TID251",
    "import pandas\npandas.read_pickle('x')": "TID251",
    "import joblib\njoblib.load('x')": "TID251",
    "import numpy\nnumpy.load('x', allow_pickle=True)": "TID251",
    "import numpy as np\nnp.load('x')": "TID251",
    "eval('1')": "S307",
    "exec('1')": "S102",
    "import subprocess\nsubprocess.run('ls', shell=True)": "S602",
    "import tarfile\ntarfile.open('x').extractall()": "S202",
}


@pytest.mark.parametrize("code", HOSTILE)
@pytest.mark.parametrize("part", ["sim", "workloads", "calibration", "reports"])
def test_unsafe_code_is_refused(part: str, code: str) -> None:
    """Whatever package it is in, by the project's own settings."""
    words = [sys.executable, "-m", "ruff", "check", "--output-format", "concise"]
    done = subprocess.run(
        [*words, "--stdin-filename", f"{part}/new.py", "-"],
        cwd=ROOT,
        input=code,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert HOSTILE[code] in done.stdout
