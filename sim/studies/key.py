"""Names of points by content: same configuration, input files and code, same key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

import calibration
import sim
import workloads
from sim.config import Config
from sim.config_errors import one_line
from sim.errors import ConfigError

_KEY_CHARACTERS: Final = 32
_NOT_INPUT: Final = (".pyc", ".pyo")


def point_key(config: Config) -> str:
    """Hash of all that a result depends on, in hex.

    That is the resolved configuration, the content of the files it names (their paths
    do not count) and the code and data of the installation.

    Raises:
        ConfigError: If a named file cannot be read.
    """
    return digest(
        {"config": canonical_config(config), "code": code_sha256()}, _KEY_CHARACTERS
    )


def canonical_config(config: Config) -> dict[str, Any]:
    """The resolved configuration as JSON values, files by name and content.

    Raises:
        ConfigError: If a named file cannot be read.
    """
    data = config.resolved().model_dump(mode="json")
    data["pools"] = list(data["pools"].items())  # in their order, which counts
    for section in data.values():
        for name, value in section.items() if isinstance(section, dict) else ():
            # load_config makes every path absolute
            if isinstance(value, str) and Path(value).is_absolute():
                section[name] = f"{Path(value).name} {_content_sha256(Path(value))}"
    return data


def digest(document: object, characters: int = 64) -> str:
    """The first hex characters of the SHA-256 of JSON with sorted keys, no spaces."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:characters]


@cache
def code_sha256() -> str:
    """Hash of the installed simulator: its code, its tables and catalogues."""
    packages = [Path(str(p.__file__)).parent for p in (sim, workloads, calibration)]
    return _hash_of(
        (f"{folder.name}/{path.relative_to(folder).as_posix()}", path)
        for folder in packages
        for path in _files(folder)
    )


@cache
def _content_sha256(path: Path) -> str:
    try:
        files = _files(path) if path.is_dir() else [path]
        return _hash_of((file.name, file) for file in files)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{one_line(str(path))}: cannot be read: {reason}") from None


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not str(path).endswith(_NOT_INPUT)
    )


def _hash_of(files: Iterable[tuple[str, Path]]) -> str:
    whole = hashlib.sha256()
    for name, path in files:
        whole.update(
            f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        )
    return whole.hexdigest()
