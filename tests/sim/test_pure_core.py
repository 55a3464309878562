"""The core opens no file: ``open`` is built in, which no import contract can see."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACT = "The core has no clock, no randomness, no files, no tables"
BUILT_IN = {"open", "input", "print", "exec", "eval", "__import__"}


def core_files() -> list[Path]:
    """The modules of the import contract, packages with all of theirs."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = [c for c in contracts if c["name"] == CONTRACT]
    files = []
    for name in contract["source_modules"]:
        path = ROOT / name.replace(".", "/")
        files += (
            sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        )
    return files


def effects(source: str) -> set[str]:
    """Built-in functions with effects that a module names."""
    nodes = ast.walk(ast.parse(source))
    return {node.id for node in nodes if isinstance(node, ast.Name)} & BUILT_IN


@pytest.mark.parametrize("path", core_files(), ids=lambda path: path.stem)
def test_core_calls_nothing_with_effects(path: Path) -> None:
    """Every module of the contract."""
    assert effects(path.read_text()) == set()


def test_effects_are_seen() -> None:
    """The check can fail, and there is something to check."""
    assert effects("with open('x') as f: print(f)") == {"open", "print"}
    assert {"engine.py", "layered_prefill.py", "view.py"} <= {
        path.name for path in core_files()
    }
