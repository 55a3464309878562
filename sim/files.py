"""Files appear whole or not at all: written beside, flushed to disk, then renamed.

Bytes depend on the data alone: no times, no names, one kind of line end.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import math
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.table import Table

if TYPE_CHECKING:
    import pandas as pd

_GZIP_LEVEL: Final = 6


def write_atomic(path: Path, data: bytes) -> None:
    """Put ``data`` in the file, replacing what was there; makes missing folders.

    Raises:
        ConfigError: One line with the path and the reason, if it cannot be written;
            what was there before is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{one_line(str(path))}: cannot be written: {one_line(reason)}"
        ) from error


def write_json_atomic(path: Path, obj: object) -> None:
    """Write JSON, indented, keys in their order; NaN and infinities become null.

    NumPy scalars and arrays are written as plain numbers and lists.

    Raises:
        ConfigError: If the file cannot be written.
    """
    text = json.dumps(_plain(obj), indent=2, allow_nan=False)
    write_atomic(path, f"{text}\n".encode("ascii"))


def write_csv_atomic(path: Path, frame: pd.DataFrame) -> None:
    """Write CSV without the index; floats read back exactly, NaN is an empty field.

    Raises:
        ConfigError: If the file cannot be written.
    """
    text = frame.to_csv(index=False, lineterminator="\n")
    write_atomic(path, text.encode())


def write_csv_gz_atomic(path: Path, table: Table) -> None:
    """Write gzipped CSV of the same form, with no time and no name.

    Raises:
        ConfigError: If the file cannot be written.
    """
    write_atomic(path, _gzipped(table.csv().encode()))


def write_json_gz_atomic(path: Path, obj: object) -> None:
    """Write gzipped JSON on one line, otherwise as :func:`write_json_atomic` does.

    Raises:
        ConfigError: If the file cannot be written.
    """
    text = json.dumps(_plain(obj), separators=(",", ":"), allow_nan=False)
    write_atomic(path, _gzipped(text.encode("ascii")))


def _gzipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    # GzipFile, since gzip.compress writes another header from Python 3.13 on
    with gzip.GzipFile("", "wb", _GZIP_LEVEL, buffer, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _replace(path: Path, data: bytes) -> None:
    # a short name, for the target's own may be as long as the file system allows
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flush the rename itself, where the file system has such a thing."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
