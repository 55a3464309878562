"""A profile anchored to a user's own measurements, as a small TOML file."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from calibration.engine_profiles import EngineProfile
from sim.config_errors import clip, one_line, value_text
from sim.config_syntax import MAX_FILE_BYTES, parse_toml
from sim.errors import ConfigError
from sim.input_file import read_bytes
from sim.step_cost import HostTimes

ANCHOR_SUFFIX: Final = ".toml"
_LONGEST_REASON: Final = 200
KERNEL_BOUNDS: Final = (0.5, 2.0)
HOST_BOUNDS: Final = (0.0, 5.0)
"""Factors beyond these say that another profile is the right base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Two factors on a shipped profile.

    Attributes:
        base: Name of the shipped profile.
        kernel_factor: On every kernel time, in ``KERNEL_BOUNDS``.
        host_factor: On every host time, in ``HOST_BOUNDS``.
        fitted_to: What the factors have seen.
        leave_one_out_error: Mean absolute relative error of the measurements, each
            predicted by factors fitted to the others.
    """

    base: str
    kernel_factor: float
    host_factor: float
    fitted_to: str
    leave_one_out_error: float

    def apply(self, profile: EngineProfile, name: str) -> EngineProfile:
        """The anchored profile."""
        host = profile.host
        scaled = HostTimes(
            *(
                round(getattr(host, field) * self.host_factor)
                for field in HostTimes.__slots__
            )
        )
        return replace(
            profile,
            name=name,
            description=f"{profile.description}; anchored to {self.fitted_to}",
            kernel_factor=profile.kernel_factor * self.kernel_factor,
            host=scaled,
            fitted_to=(*profile.fitted_to, self.fitted_to),
        )

    def toml(self) -> str:
        """The file's text; strings are JSON strings, which TOML reads alike."""
        return (
            "# Written by servescope calibrate anchor, for calibration.profile.\n"
            f"base = {_quoted(self.base)}\n"
            f"kernel_factor = {self.kernel_factor!r}\n"
            f"host_factor = {self.host_factor!r}\n"
            f"fitted_to = {_quoted(self.fitted_to)}\n"
            f"leave_one_out_error = {self.leave_one_out_error!r}\n"
        )


def read_anchor(path: Path) -> Anchor:
    """Read an anchor file.

    Raises:
        ConfigError: One line: the file, key, value and what is allowed.
    """
    where = one_line(str(path))
    try:
        values = parse_toml(read_bytes(path, MAX_FILE_BYTES).decode())
    except ValueError as error:
        reason = clip(str(error), _LONGEST_REASON)
        raise ConfigError(f"{where}: not a TOML file: {reason}") from error
    allowed = set(Anchor.__slots__)
    if set(values) != allowed:
        odd = clip(", ".join(sorted(set(values) ^ allowed)), _LONGEST_REASON)
        raise ConfigError(f"{where}: missing or unknown keys: {odd}")
    return Anchor(
        base=_text(path, values, "base"),
        kernel_factor=_number(path, values, "kernel_factor", KERNEL_BOUNDS),
        host_factor=_number(path, values, "host_factor", HOST_BOUNDS),
        fitted_to=_text(path, values, "fitted_to"),
        leave_one_out_error=_number(path, values, "leave_one_out_error", (0, math.inf)),
    )


def _text(path: Path, values: Mapping[str, Any], key: str) -> str:
    value = values[key]
    if not isinstance(value, str):
        where = f"{one_line(str(path))}: {key} = {value_text(value)}"
        raise ConfigError(f"{where}: must be a string")
    return value


def _number(
    path: Path, values: Mapping[str, Any], key: str, bounds: tuple[float, float]
) -> float:
    value, (low, high) = values[key], bounds
    # An integer of TOML may be too large for a float.
    number = isinstance(value, float) or (type(value) is int and value < sys.maxsize)
    if not number or not low <= value <= high:
        where = f"{one_line(str(path))}: {key} = {value_text(value)}"
        raise ConfigError(f"{where}: must be a number >= {low} and <= {high}")
    return float(value)


def _quoted(text: str) -> str:
    plain = "".join(c if c.isprintable() else " " for c in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
