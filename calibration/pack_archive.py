"""Reading the members of a pack that may be anything: bounded, plain numbers only."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sim.config_errors import clip
from sim.errors import ConfigError

MAX_UNPACKED_BYTES: Final = 1 << 24
"""Of all members together; the largest shipped pack has 3.3 MB."""
MAX_ROWS: Final = 1 << 20
"""Of one table; the largest shipped one has 71,484."""
_WIDEST_INTEGER: Final = 8
_WIDEST_WORD: Final = 4 * 32
_SUFFIX: Final = ".npy"
# The .npy format, version 1.0 (NEP 1): magic, version, length of the header, header.
_PREFIX: Final = struct.Struct("<8sH")
_MAGIC: Final = b"\x93NUMPY\x01\x00"
_HEADER: Final = re.compile(
    rb"\{'descr': '(?P<dtype>[<|]u[1248]|<U[0-9]{1,4})', 'fortran_order': False,"
    rb" 'shape': \((?P<rows>[0-9]{1,18}),\), \} *\n"
)
_PROBLEMS: Final = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    # an encrypted member, another compression, a name twice, a damaged header
    *(RuntimeError, NotImplementedError, KeyError, ValueError),
)


class PackArchive:
    """The arrays of an ``.npz`` archive, each unpacked when it is asked for.

    Args:
        content: Bytes of the archive.
        file: Its name, for messages.

    Attributes:
        file: As given.
        names: Names of the members.

    Raises:
        ConfigError: If it is no archive, or would unpack to more than a pack can be.
    """

    def __init__(self, content: bytes, file: str) -> None:
        self.file: Final = file
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except _PROBLEMS as error:
            raise self._bad("not a pack", str(error)) from error
        sizes = {i.filename: i.file_size for i in self._zip.infolist()}
        if sum(sizes.values()) > MAX_UNPACKED_BYTES:
            raise self._bad("not a pack", f"over {MAX_UNPACKED_BYTES} bytes unpacked")
        self.names = tuple(
            name.removesuffix(_SUFFIX) for name in sizes if name.endswith(_SUFFIX)
        )

    def integers(self, name: str) -> NDArray[np.unsignedinteger[Any]]:
        """A member of whole numbers, one-dimensional, read-only.

        Raises:
            ConfigError: If it is damaged or something else; nothing is unpickled.
        """
        return self._member(name, "u", _WIDEST_INTEGER)

    def words(self, name: str) -> NDArray[np.str_]:
        """A member of words, one-dimensional, read-only.

        Raises:
            ConfigError: If it is damaged or something else; nothing is unpickled.
        """
        return self._member(name, "U", _WIDEST_WORD)

    def _member(self, name: str, kind: str, widest: int) -> NDArray[Any]:
        try:
            # no more than the directory says is unpacked, whatever the member holds
            return _array(self._zip.read(name + _SUFFIX), kind, widest)
        except _PROBLEMS as error:
            raise self._bad(clip(name), str(error)) from error

    def _bad(self, what: str, reason: str) -> ConfigError:
        return ConfigError(f"{self.file}: {what}: {clip(reason, 200)}")


def _array(payload: bytes, kind: str, widest: int) -> NDArray[Any]:
    """The array of a ``.npy`` file, without a copy and without evaluating its header.

    Raises:
        ValueError: If it is not as `calibration.pack_format` writes it.
    """
    start = _PREFIX.size
    if len(payload) < start:
        raise ValueError("not a .npy file")
    magic, length = _PREFIX.unpack_from(payload)
    header = _HEADER.fullmatch(payload[start : start + length])
    if magic != _MAGIC or header is None:
        raise ValueError("not a one-dimensional .npy file of version 1.0")
    dtype, rows = np.dtype(header["dtype"].decode()), int(header["rows"])
    if dtype.kind != kind or not 0 < dtype.itemsize <= widest:
        raise ValueError("not unsigned integers or short words")
    if rows > MAX_ROWS:
        raise ValueError(f"{rows} rows, over {MAX_ROWS}")
    if len(payload) - start - length != rows * dtype.itemsize:
        raise ValueError("not as long as its header says")
    return np.frombuffer(payload, dtype, rows, start + length)
