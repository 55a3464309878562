"""Reading the user's CSV files row by row, in memory that does not grow with them."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, TextIO, cast

from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.input_file import open_regular, reason

GZIP_SUFFIX: Final = ".gz"
MAX_ROW_CHARACTERS: Final = 1 << 20
MAX_ROW_LINES: Final = 10_000
MAX_BLANK_LINES: Final = 1000
"""So that a small archive cannot unpack to hours of nothing."""


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV file with the line they end on; blank lines are skipped.

    UTF-8, with or without a byte order mark, any line end; unpacked while it is read
    if its name ends in .gz.

    Raises:
        ConfigError: One line with the path, the line and what is allowed, if it cannot
            be read, is not CSV, or has a row or a gap beyond reason.
    """
    shown = one_line(str(path))
    try:
        file = open_regular(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{shown}: {reason(error)}: cannot read; allowed: a CSV file"
        ) from error
    lines = _Lines()
    with file:
        try:
            lines.text = io.TextIOWrapper(unpacked(path, file), "utf-8-sig", newline="")
            yield from lines.rows()
        except UnicodeDecodeError as error:
            # Text is decoded a buffer at a time, so the line is only near.
            where = f"near line {lines.number + 1}: not UTF-8 text at byte"
            problem = f"{where} {error.start}: {error}; allowed: CSV in UTF-8"
        except (OSError, EOFError, zlib.error) as error:
            problem = f"cannot read: {reason(error)}; allowed: a CSV file"
        except (csv.Error, _BeyondReasonError) as error:
            problem = f"line {lines.number}: {error}: not CSV; allowed: CSV in UTF-8"
        else:
            return
    raise ConfigError(f"{shown}: {one_line(problem)}")


def unpacked(path: Path, file: BinaryIO) -> BinaryIO:
    """The file, unpacked while it is read if the name ends in .gz."""
    if path.suffix.lower() != GZIP_SUFFIX:
        return file
    return cast(BinaryIO, gzip.GzipFile(fileobj=file))


class _BeyondReasonError(Exception):
    """A row or a gap that no real file has."""


class _Lines:
    """Lines for `csv.reader`, counted so that no row can fill the memory."""

    def __init__(self) -> None:
        self.text: TextIO
        self.number = 0
        self._row_characters = 0
        self._row_start = 0
        self._blank = 0

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        for row in csv.reader(self, strict=True):
            if row:
                yield self.number, row
            else:
                self._blank += 1
                if self._blank > MAX_BLANK_LINES:
                    raise _BeyondReasonError(f"over {MAX_BLANK_LINES} blank lines")
            self._row_characters = 0
            self._row_start = self.number

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.text.readline(MAX_ROW_CHARACTERS + 1)
        self._row_characters += len(line)
        if self._row_characters > MAX_ROW_CHARACTERS:
            raise _BeyondReasonError(f"a row of over {MAX_ROW_CHARACTERS} characters")
        if not line:
            raise StopIteration
        self.number += 1
        if self.number - self._row_start > MAX_ROW_LINES:
            raise _BeyondReasonError(f"a row of over {MAX_ROW_LINES} lines")
        return line
