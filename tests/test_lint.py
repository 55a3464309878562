"""The linter, and a look at the code itself, refuse what could run what it reads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("sim", "workloads", "calibration", "reports")
FILES = sorted(file for part in PARTS for file in (ROOT / part).rglob("*.py"))
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "read_pickle", "fromstring"}
HOSTILE = {
    "import pickle\npickle.load(open('x'))": "S301",
    "import marshal\nmarshal.loads(b'')": "S302",
    "import shelve\nshelve.open('x')": "S301",
    "import pandas\npandas.read_pickle('x')": "S301",
    "import yaml\nyaml.load('x')": "S506",
    "eval('1')": "S307",
    "exec('1')": "S102",
    "import subprocess\nsubprocess.run('ls', shell=True)": "S602",
    "import tarfile\ntarfile.open('x').extractall()": "S202",
}


@pytest.mark.parametrize("code", HOSTILE)
@pytest.mark.parametrize("part", PARTS)
def test_unsafe_code_is_refused_by_the_linter(part: str, code: str) -> None:
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


def unsafe(code: str) -> list[str]:
    """Imports and calls that unpickle or evaluate, and numpy.load that might."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
            found += sorted(names & UNSAFE_MODULES)
        elif isinstance(node, ast.ImportFrom):
            found += sorted({(node.module or "").partition(".")[0]} & UNSAFE_MODULES)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            name = called.rpartition(".")[2]
            plain = "re." not in called and name in UNSAFE_CALLS
            refuses = any(
                word.arg == "allow_pickle" and ast.unparse(word.value) == "False"
                for word in node.keywords
            )
            if plain or (called in {"np.load", "numpy.load"} and not refuses):
                found.append(called)
    return found


def test_no_package_unpickles_or_evaluates() -> None:
    """Not under another name of the linter's either."""
    assert len(FILES) > 100
    found = {str(file): unsafe(file.read_text("utf-8")) for file in FILES}
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "code",
    [
        *("import pickle", "from marshal import loads", "import yaml.loader as y"),
        *("np.load('x')", "np.load('x', allow_pickle=True)", "eval('1')", "exec('')"),
        *("pd.read_pickle('x')", "compile('1', '', 'eval')"),
    ],
)
def test_the_look_sees_what_it_should(code: str) -> None:
    assert unsafe(code)
    assert not unsafe(
        "np.load('x', allow_pickle=False); re.compile('x'); ast.parse('')"
    )
