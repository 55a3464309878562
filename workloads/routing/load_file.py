"""Reading JSON, CSV and npz of unknown origin: bounded, and nothing is executed."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sim.config_errors import one_line
from sim.errors import ConfigError

_MAX_BYTES: Final = 2**30


def read_bytes(path: Path) -> bytes:
    """The content of a file of at most 1 GiB.

    Raises:
        ConfigError: If it is missing, unreadable or larger.
    """
    where = one_line(str(path))
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{where}: larger than 1 GiB")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{where}: cannot be read: {one_line(reason)}") from None


def read_json(path: Path) -> Any:
    """A JSON document.

    Raises:
        ConfigError: If the file cannot be read or is not JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        reason = one_line(str(error))
        raise ConfigError(f"{one_line(str(path))}: not JSON: {reason}") from None


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an npz (or the one of an npy, as "array"); pickles are refused.

    Raises:
        ConfigError: If it is no such file, holds Python objects, or unpacks to more
            than 1 GiB.
    """
    content, where = read_bytes(path), one_line(str(path))
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if sum(item.file_size for item in archive.infolist()) > _MAX_BYTES:
                    raise ConfigError(f"{where}: unpacks to more than 1 GiB")
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"array": loaded}
        return {name: loaded[name] for name in loaded.files}
    except ConfigError:
        raise
    except Exception as error:  # the zip and npy readers raise a dozen kinds
        reason = one_line(str(error)) or type(error).__name__
        raise ConfigError(f"{where}: not an npz of plain arrays: {reason}") from None


def numbers(value: object, where: str, name: str) -> npt.NDArray[np.float64]:
    """Nested lists of numbers as an array.

    Raises:
        ConfigError: If they are ragged or hold anything else.
    """
    try:
        return np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise ConfigError(
            f"{where}: {name}: must be lists of numbers, all of the same length"
        ) from None


def whole(value: object, where: str, name: str) -> int:
    """A whole number.

    Raises:
        ConfigError: If it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{where}: {name}: must be an integer")
    return value
