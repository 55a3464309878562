"""The packed kernel timings on disk: member names, rounding, reproducible bytes.

A pack is one NumPy ``.npz`` file per GPU and framework. Member ``<table>/<column>`` is
one column of one table; all columns of a table have the same length and the rows are
unique and in ascending order of the key columns, taken from left to right. Integers
are kept in the smallest unsigned type. A column of strings is kept as small-integer
codes, and the member ``<table>/<column>.values`` spells the codes out.
``provenance.json`` beside the packs says where every table comes from and holds the
SHA-256 of every pack.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SCHEMA: Final = "calibration/2"
PROVENANCE: Final = "provenance.json"
LATENCY: Final = "latency_ns"
VALUES_SUFFIX: Final = ".values"
SIGNIFICANT_DIGITS: Final = 4

# The smallest date a zip archive can hold: a real one would change the bytes.
_ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_UNIX: Final = 3
_DEFLATE_LEVEL: Final = 9


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def rounded_ns(latency_ms: NDArray[np.float64]) -> NDArray[np.int64]:
    """Milliseconds as integer nanoseconds with four significant digits.

    The relative error is at most 0.05 % (and half a nanosecond below 1 us), far below
    the run-to-run noise of the measurements; it halves the size of a pack.

    Args:
        latency_ms: positive finite durations in milliseconds.
    """
    exact_ns = latency_ms * 1e6
    powers = 10 ** np.arange(19, dtype=np.int64)
    digits = np.searchsorted(powers, exact_ns, side="right")
    unit = powers[np.maximum(digits - SIGNIFICANT_DIGITS, 0)]
    # Rounded once, straight to the last digit kept: rounding twice would add errors.
    return np.rint(exact_ns / unit).astype(np.int64) * unit


def compact(column: NDArray[np.int64]) -> NDArray[Any]:
    """The same non-negative integers in the smallest unsigned type, little-endian."""
    largest = int(column.max(initial=0))
    dtype = np.min_scalar_type(largest)
    return column.astype(dtype.newbyteorder("<"))


def coded(name: str, column: NDArray[np.str_]) -> dict[str, NDArray[Any]]:
    """The two archive members of a column of strings: its values and its codes."""
    values, codes = np.unique(column, return_inverse=True)
    return {name + VALUES_SUFFIX: values, name: compact(codes.astype(np.int64))}


def npz_bytes(members: Mapping[str, NDArray[Any]]) -> bytes:
    """A compressed ``.npz`` archive that is the same bytes for the same members.

    Unlike `numpy.savez_compressed` it writes no time stamps. Members keep their order,
    so a reader finds a table's key columns in sorting order. The compressed bytes also
    depend on the version of zlib.

    Raises:
        ValueError: if a member would need pickling.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, column in members.items():
            payload = io.BytesIO()
            np.lib.format.write_array(
                payload, column, version=(1, 0), allow_pickle=False
            )
            info = zipfile.ZipInfo(f"{name}.npy", date_time=_ZIP_EPOCH)
            info.create_system = _UNIX
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, payload.getvalue(), compresslevel=_DEFLATE_LEVEL)
    return archive.getvalue()
