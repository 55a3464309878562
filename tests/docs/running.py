"""Executes the blocks of a page in a folder of its own, as a reader would."""

from __future__ import annotations

import doctest
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.docs.snippets import Block, commands

ROOT = Path(__file__).parents[2]
PACKAGES = ("sim", "workloads", "calibration", "reports")
_SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_COLUMNS = "80"


@dataclass(frozen=True, slots=True)
class Difference:
    """A block whose output is not the one shown."""

    block: Block
    printed: str


class Page:
    """The folder in which a page's blocks run, one after the other.

    Args:
        folder: Empty; becomes the working directory.
        blocks: Those of the page. If one edits or adds to the packages, a copy of the
            packages is what runs.
    """

    def __init__(self, folder: Path, blocks: Sequence[Block]) -> None:
        self._folder = folder
        self._blocks = blocks
        self._tree = ROOT
        if any(_in_packages(block) for block in blocks):
            self._tree = folder
            for name in PACKAGES:
                _copied_or_linked(name, folder, blocks)
            for name in ("tests", "pyproject.toml"):
                (folder / name).symlink_to(ROOT / name)
        scripts = folder / ".bin"
        scripts.mkdir()
        _script(scripts / "servescope", "-P -c 'from sim.cli import main; main()'")
        _script(scripts / "python", "")
        self._environment = {
            **os.environ,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self._tree),
            "COLUMNS": _COLUMNS,
            "NO_COLOR": "1",
        }

    def run(self, *, long: bool) -> list[Difference]:
        """Execute all blocks, or those that are not long.

        Raises:
            AssertionError: If a command fails.
        """
        wrong: list[Difference] = []
        printed: str | None = None
        for block in self._blocks:
            if block.long and not long:
                printed = None
            elif block.action == "output":
                wrong += [] if printed is None else _compared(block, printed)
            elif block.language == "console":
                printed = self._console(block)
                wrong += _compared(block, printed)
            else:
                printed = self._one(block)
        return wrong

    def _one(self, block: Block) -> str:
        path = self._folder / block.argument
        match block.action:
            case "ci":
                return ""
            case "file":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, "utf-8")
                return ""
            case "edit":
                path.write_text(edited(path.read_text("utf-8"), block), "utf-8")
                return ""
        if block.language == "python":
            return self._printed(block, [sys.executable, "-c", block.text])
        return self._printed(block, _shell(block.text))

    def _console(self, block: Block) -> str:
        parts = []
        for command, _ in commands(block.text):
            echoed = command.replace("\n", "\n> ")
            parts.append(f"$ {echoed}\n{self._printed(block, _shell(command))}")
        return "".join(parts)

    def _printed(self, block: Block, words: list[str]) -> str:
        done = subprocess.run(
            words,
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = f"{block.where}\n{block.text}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, said
        return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def edited(text: str, block: Block) -> str:
    """A text with the lines of a diff added or removed.

    Raises:
        AssertionError: If what the diff quotes is not there exactly once.
    """
    for hunk in block.text.split("\n@@\n"):
        lines = hunk.strip("\n").splitlines()
        old = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
        new = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
        assert text.count(old) == 1, f"{block.where}: not once in the file:\n{old}"
        text = text.replace(old, new)
    return text


def _in_packages(block: Block) -> bool:
    return block.action in {"edit", "file"} and "/" in block.argument


def _copied_or_linked(name: str, folder: Path, blocks: Sequence[Block]) -> None:
    changed = any(block.argument.startswith(f"{name}/") for block in blocks)
    if changed:
        shutil.copytree(ROOT / name, folder / name)
    else:
        (folder / name).symlink_to(ROOT / name)


def _script(path: Path, arguments: str) -> None:
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
    path.chmod(0o755)


def _shell(text: str) -> list[str]:
    return ["bash", "-euo", "pipefail", "-c", text]


def _compared(block: Block, printed: str) -> list[Difference]:
    same = doctest.OutputChecker().check_output(block.text, printed, _SAME)
    return [] if same else [Difference(block, printed)]
