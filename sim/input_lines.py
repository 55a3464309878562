"""Reading the user's JSON Lines files line by line, in memory that does not grow."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO

from sim.config_errors import clip, one_line
from sim.config_syntax import parse_json
from sim.errors import ConfigError
from sim.input_csv import MAX_BLANK_LINES, MAX_ROW_CHARACTERS, unpacked
from sim.input_file import open_regular, reason

_LONGEST_REASON: Final = 200


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSON Lines file with the line each stands on; blank lines skipped.

    UTF-8, with or without a byte order mark, any line end; unpacked while it is read
    if its name ends in .gz.

    Raises:
        ConfigError: One line with the path, the line and what is allowed, if it cannot
            be read, or has a line that is no JSON object or beyond reason.
    """
    shown = one_line(str(path))
    number = 0
    try:
        with open_regular(path) as file:
            text = io.TextIOWrapper(unpacked(path, file), "utf-8-sig")
            for line in _bounded(text):
                number += 1
                if line.strip():
                    yield number, parse_json(line)
        return
    except UnicodeDecodeError as error:
        # Text is decoded a buffer at a time, so the line is only near.
        problem = f"near line {number + 1}: not UTF-8 text at byte {error.start}"
    except (OSError, EOFError, zlib.error) as error:
        problem = f"{reason(error)}: cannot read"
    except ValueError as error:
        problem = f"line {number}: {clip(str(error), _LONGEST_REASON)}"
    raise ConfigError(f"{shown}: {problem}; allowed: a JSON object per line, in UTF-8")


def _bounded(text: TextIO) -> Iterator[str]:
    blank = 0
    while line := text.readline(MAX_ROW_CHARACTERS + 1):
        blank += not line.strip()
        if len(line) > MAX_ROW_CHARACTERS:
            raise ValueError(f"over {MAX_ROW_CHARACTERS} characters follow")
        if blank > MAX_BLANK_LINES:
            raise ValueError(f"over {MAX_BLANK_LINES} blank lines")
        yield line
