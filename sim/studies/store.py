"""Finished points on disk: one folder per key, whole or not there; one writer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.files import write_atomic
from sim.results import make_directory
from sim.studies.key import digest
from sim.summary import Summary

POINTS: Final = "points"
POINT_FILE: Final = "point.json"
LOCK_FILE: Final = ".lock"
_CHECKSUM: Final = "sha256"


@dataclass(frozen=True, slots=True)
class Record:
    """What became of a point.

    Attributes:
        key: See :func:`sim.studies.key.point_key`.
        config: The resolved configuration as JSON values.
        summary: Keys of ``result.json``; None if the point failed.
        error: Why it failed, in one line; None if it did not.
    """

    key: str
    config: dict[str, Any]
    summary: Summary | None
    error: str | None

    @property
    def ok(self) -> bool:
        """Whether there is a result."""
        return self.error is None


class PointStore:
    """Points below a folder; a point exists if its file does and its checksum holds.

    Args:
        directory: The study's folder.
    """

    def __init__(self, directory: Path) -> None:
        self._points = directory / POINTS

    def folder(self, key: str) -> Path:
        """Where the files of a point are."""
        return self._points / key

    def get(self, key: str) -> Record | None:
        """The record, or None where there is none that is whole.

        Raises:
            ConfigError: If the file is there and cannot be read.
        """
        path = self.folder(key) / POINT_FILE
        try:
            body = json.loads(path.read_bytes())
            checksum = body.pop(_CHECKSUM)
            if checksum != digest(body) or body["key"] != key:
                return None
            return Record(**body)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(
                f"{one_line(str(path))}: cannot be read: {error.strerror}"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # not a file of ours, or a damaged one: run the point again

    def put(self, record: Record) -> None:
        """Write a record; it is on disk when this returns.

        Raises:
            ConfigError: If it cannot be written; nothing half-written stays.
        """
        body = {
            "key": record.key,
            "config": record.config,
            "summary": record.summary,
            "error": record.error,
        }
        document = {**body, _CHECKSUM: digest(body)}
        text = json.dumps(document, indent=1, allow_nan=False)
        path = self.folder(record.key) / POINT_FILE
        write_atomic(path, f"{text}\n".encode("ascii"))

    def clean(self) -> None:
        """Delete temporary files that a killed writer left behind."""
        for path in self._points.glob("*/.*.tmp"):
            path.unlink(missing_ok=True)


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Hold a folder for this process alone; the system lets go when it dies.

    Raises:
        ConfigError: If another process holds it, or the folder cannot be written.
    """
    make_directory(directory)
    path = directory / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(
            f"{one_line(str(directory))}: cannot be written: {error.strerror}"
        ) from None
    try:
        if not _lock(descriptor):
            raise ConfigError(
                f"{one_line(str(directory))}: another study is writing to this folder;"
                " wait for it, or choose another --out"
            )
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether the file is now ours."""
    try:
        import fcntl  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
