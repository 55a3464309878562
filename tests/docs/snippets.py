"""The fenced blocks of a Markdown page, and what is to be done with each.

A comment right above a block says so, because a reader of the page does not see it:

``<!-- file: NAME -->``
    is written there (``toml``, ``csv``, ``python``);
``<!-- edit: NAME -->``
    is a ``diff`` of a file of the checkout, applied to a copy of it;
``<!-- output -->``
    is what the block before it prints; ``...`` stands for anything;
``<!-- ci: NAME -->``
    is run by ``.ci/run``;
``<!-- long -->``
    is run in the long suite only.

Without one, ``sh`` and ``python`` are run, and ``console`` too: lines from ``$ `` on
are commands, the others their output. Anything else is an error, so no block is left
out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUN = frozenset({"sh", "python", "console"})
WRITTEN = frozenset({"toml", "csv", "json", "python"})
_FENCE = re.compile(r"^```(\w*)$")
_MARKER = re.compile(r"^<!-- (file|edit|ci|output|long)(?:: (\S+))? -->$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block.

    Attributes:
        where: Page and line, for messages.
        line: Of the first line of its text, counted from 0.
        language: After the fence.
        text: With the last line's end.
        action: "run", "file", "edit", "output" or "ci".
        argument: Of the marker.
        long: Whether it is marked so.
    """

    where: str
    line: int
    language: str
    text: str
    action: str
    argument: str = ""
    long: bool = False


def blocks(page: Path) -> list[Block]:
    """Every block of a page in order.

    Raises:
        ValueError: If one would not be executed, or is never closed.
    """
    return list(_blocks(page.name, page.read_text("utf-8").splitlines()))


def _blocks(name: str, lines: list[str]) -> Iterator[Block]:
    start, language = None, ""
    for number, line in enumerate(lines):
        if start is None and line.startswith("```"):
            fence = _FENCE.match(line)
            if fence is None:
                raise ValueError(f"{name}:{number + 1}: odd fence {line!r}")
            start, language = number + 1, fence[1]
        elif start is not None and line == "```":
            marker = _MARKER.match(lines[start - 2]) if start > 1 else None
            text = "".join(f"{line}\n" for line in lines[start:number])
            yield _block(f"{name}:{start}", start, language, text, marker)
            start = None
    if start is not None:
        raise ValueError(f"{name}:{start}: never closed")


def _block(
    where: str, line: int, language: str, text: str, marker: re.Match[str] | None
) -> Block:
    word = marker[1] if marker else "run"
    action = "run" if word == "long" else word
    allowed = {
        "run": language in RUN,
        "file": language in WRITTEN,
        "edit": language == "diff",
        "output": language == "text",
        "ci": language == "sh",
    }
    if not allowed[action]:
        raise ValueError(f"{where}: {language or 'plain'} block that nothing {action}s")
    return Block(
        where=where,
        line=line,
        language=language,
        text=text,
        action=action,
        argument=(marker[2] or "") if marker else "",
        long=word == "long",
    )


def commands(console: str) -> list[tuple[str, str]]:
    """Commands of a ``console`` block, each with the output shown below it."""
    found: list[tuple[str, str]] = []
    for line in console.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found and line.startswith("> "):
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
        else:
            raise ValueError(f"output before any command: {line!r}")
    return found
