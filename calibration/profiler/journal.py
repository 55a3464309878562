"""What a profiling session has measured so far, one durable line per kernel.

The first line says which device and rules the session has; a line counts once its line
end is on disk. A torn last line is cut off when the file is opened again, so a kernel
is either measured or measured again, whenever the process was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from calibration.profiler.columns import TABLES, Kernel, KernelRow
from calibration.profiler.timing import Timing
from sim.config_errors import clip, one_line
from sim.errors import ConfigError
from sim.input_file import open_regular, read_bytes

SCHEMA: Final = "profile-journal/2"


@dataclass(frozen=True, slots=True)
class Entry:
    """One kernel of a session: measured, or failed with a reason.

    Attributes:
        kernel: the kernel.
        source: what ran, empty if it failed.
        timing: what it took, None if it failed.
        failed: why it failed, empty if it was measured.
    """

    kernel: Kernel
    source: str = ""
    timing: Timing | None = None
    failed: str = ""

    @property
    def row(self) -> KernelRow | None:
        """The CSV row; None if it failed."""
        if self.timing is None:
            return None
        timing = self.timing
        return KernelRow(
            self.kernel,
            timing.latency_ns,
            timing.energy_mj,
            self.source,
            timing.timer,
            timing.event_ns,
        )


class Journal:
    """The entries of a session, on disk before they are in `entries`.

    Args:
        path: the file, made if it is not there.
        identity: what must not change within a session.
        started: date of the session's start; an older journal keeps its own.
        writable: False for all ranks but one: they remember, and write nothing.

    Raises:
        ConfigError: if the file is another session's, is damaged before its last line,
            is in use by another process or cannot be written.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], started: str, *, writable: bool
    ) -> None:
        self.path = path
        self.entries: dict[Kernel, Entry] = {}
        self._file: BinaryIO | None = _open(path) if writable else None
        try:
            lines = _whole_lines(path)
            if self._file is not None:
                self._file.truncate(sum(map(len, lines)))
            header = {"schema": SCHEMA, "started": started, "identity": dict(identity)}
            if lines:
                header = _checked_header(path, lines[0], header)
            else:
                self._append(header)
            self.started = str(header["started"])
            for number, line in enumerate(lines[1:], 2):
                entry = _entry(path, number, line)
                self.entries[entry.kernel] = entry
        except BaseException:
            self.close()
            raise

    def add(self, entry: Entry) -> None:
        """Write an entry; returns once it is on disk.

        Raises:
            OSError: if it cannot be written.
        """
        timing = None if entry.timing is None else asdict(entry.timing)
        kernel = [entry.kernel.table, *entry.kernel.values]
        self._append({**asdict(entry), "kernel": kernel, "timing": timing})
        self.entries[entry.kernel] = entry

    def close(self) -> None:
        """Close the file and let others have it."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, document: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        self._file.write(json.dumps(document, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _open(path: Path) -> BinaryIO:
    shown = one_line(str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_regular(path, "ab")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{shown}: cannot be written: {reason}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigError(f"{shown}: in use by another process") from error
    return file


def _whole_lines(path: Path) -> list[bytes]:
    """The lines that end; what follows the last line end was torn by a crash."""
    content = read_bytes(path) if os.path.exists(path) else b""
    return [line for line in content.splitlines(keepends=True) if line[-1:] == b"\n"]


def _checked_header(
    path: Path, line: bytes, expected: dict[str, Any]
) -> dict[str, Any]:
    shown = one_line(str(path))
    found = _document(path, 1, line)
    sound = isinstance(found.get("identity"), dict) and "started" in found
    if found.get("schema") != SCHEMA or not sound:
        raise ConfigError(f"{shown}: line 1: not a journal of schema {SCHEMA}")
    ours, theirs = expected["identity"], found["identity"]
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            raise ConfigError(
                f"{shown}: begun with {clip(key)} = {clip(str(theirs.get(key)))}, now"
                f" {clip(str(ours.get(key)))}; go on as it was begun, or choose another"
                " --out"
            )
    return found


def _entry(path: Path, number: int, line: bytes) -> Entry:
    document = _document(path, number, line)
    try:
        table, *values = document["kernel"]
        if len(values) != len(TABLES[table]):
            raise ValueError("wrong number of keys")
        timing = document["timing"]
        if timing is not None:
            timing = Timing(**{**timing, "flags": tuple(timing["flags"])})
        kernel = Kernel(table, tuple(values))
        hash(kernel)  # lists and objects are no keys
        return Entry(kernel, document["source"], timing, document["failed"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, number) from error


def _document(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, number) from error
    if not isinstance(document, dict):
        raise _damaged(path, number)
    return document


def _damaged(path: Path, number: int) -> ConfigError:
    return ConfigError(
        f"{one_line(str(path))}: line {number}: damaged; delete the line to measure its"
        " kernel again"
    )
