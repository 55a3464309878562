"""Reading the user's files: regular files of bounded size, never a wait for a pipe."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final, Literal

from sim.config_errors import one_line
from sim.errors import ConfigError

LARGEST_FILE_BYTES: Final = 1 << 26
"""Far above any pack, catalogue or table of rooflines (the largest is 1.5 MB)."""

_BLOCK: Final = 1 << 16
# Opening a FIFO would wait for a writer; with this flag it is refused at once instead.
_AT_ONCE: Final = getattr(os, "O_NONBLOCK", 0)


def open_regular(path: Path, mode: Literal["rb", "ab"] = "rb") -> BinaryIO:
    """Open a file; symbolic links are followed.

    Raises:
        OSError: If it cannot be opened, or is a pipe, a device or a folder.
        ValueError: If its name cannot be one.
    """
    file = open(path, mode, opener=_open_at_once)  # noqa: SIM115  (the caller does)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def read_bytes(path: Path, most_bytes: int = LARGEST_FILE_BYTES) -> bytes:
    """All bytes of a file.

    Args:
        path: The file.
        most_bytes: The largest size accepted.

    Raises:
        ConfigError: One line with the path and the reason, if it is no regular file,
            cannot be read or is too large.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            # asked for as much as it has, not for the most: that would be reserved
            content = file.read(max(size, _BLOCK) + 1) if size <= most_bytes else None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{one_line(str(path))}: cannot read: {reason(error)}"
        ) from error
    if content is None or len(content) > most_bytes:
        raise ConfigError(
            f"{one_line(str(path))}: too large; allowed: at most {most_bytes} bytes"
        )
    return content


def reason(error: Exception) -> str:
    """What the system says is wrong, on one line and without the file's name."""
    return one_line(getattr(error, "strerror", None) or str(error))


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | _AT_ONCE, 0o666)
