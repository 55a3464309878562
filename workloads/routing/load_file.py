"""Reading JSON, CSV and npz of unknown origin: bounded, and nothing is executed."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sim.config_errors import clip, one_line
from sim.errors import ConfigError
from sim.input_file import read_bytes

_LONGEST_REASON: Final = 200  # of what a library says, which may quote the file
_MAX_JSON: Final = 2**28
"""Statistics of 58 layers of 256 experts take 75 MB."""
MOST: Final = 1e30
"""Of anything counted; sums of many stay finite."""
_MAX_UNPACKED: Final = 2**27
_MAX_NUMBERS: Final = 2**24
"""Of an npz: 40,000 tokens through 48 layers to 8 experts each."""


def read_json(path: Path) -> Any:
    """A JSON document.

    Raises:
        ConfigError: If the file cannot be read or is not JSON.
    """
    try:
        return json.loads(read_bytes(path, _MAX_JSON))
    except (ValueError, RecursionError) as error:
        reason = clip(str(error), _LONGEST_REASON)
        raise ConfigError(f"{one_line(str(path))}: not JSON: {reason}") from None


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an npz (or the one of an npy, as "array"); pickles are refused.

    Raises:
        ConfigError: If it is no such file, holds Python objects, or unpacks to more
            than 128 MiB or 16 million numbers.
    """
    content, where = read_bytes(path), one_line(str(path))
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if sum(item.file_size for item in archive.infolist()) > _MAX_UNPACKED:
                    raise ConfigError(f"{where}: unpacks to over {_MAX_UNPACKED} bytes")
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {"array": loaded}
        else:
            arrays = {name: loaded[name] for name in loaded.files}
        if sum(array.size for array in arrays.values()) > _MAX_NUMBERS:
            raise ConfigError(f"{where}: holds over {_MAX_NUMBERS} numbers")
        return arrays
    except ConfigError:
        raise
    except Exception as error:  # the zip and npy readers raise a dozen kinds
        reason = clip(str(error), _LONGEST_REASON) or type(error).__name__
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
