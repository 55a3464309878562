"""What a trace holds, whatever its format, and how a bad one is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.prefix import Prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Rows of a trace file, in file order.

    Attributes:
        path: The file, as the user named it.
        arrival_ns: Non-decreasing times in ns, shape (n,); None in a lengths-only file.
        prompt_tokens: Prompt lengths, >= 1, shape (n,).
        output_tokens: Output lengths, >= 1, shape (n,).
        prefixes: What each prompt shares with others; None if the file does not say.
    """

    path: str
    arrival_ns: NDArray[np.int64] | None
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    prefixes: Sequence[Prefix] | None = None


def bad_value(
    path: str, line: int, column: str, value: object, allowed: str
) -> ConfigError:
    """The error of one value of a trace, on one line."""
    shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:40] + "..."
    where = f"{one_line(path)}:{line}"
    return ConfigError(f"{where}: {column}: {shown}; allowed: {allowed}")
