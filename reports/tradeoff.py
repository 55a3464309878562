"""The trade-off frame: policies at one rate, each with several values of its knob."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd

from reports.frame import check_compare, finite_rates, read_table
from sim.errors import ConfigError

TRADEOFF_FILE: Final = "tradeoff.csv"
_KNOB: Final = "knob"


def read_tradeoff(path: Path) -> pd.DataFrame:
    """Read and check a ``tradeoff.csv``.

    Args:
        path: The file: the columns of ``compare.csv``, ``knob`` and ``knob_value``;
            one row per (scheduler, knob_value).

    Returns:
        The frame as written, in the writer's units.

    Raises:
        ConfigError: The file is missing, is no table, or fails `check_tradeoff`.
    """
    frame = read_table(path)
    check_tradeoff(frame, str(path))
    return frame


def check_tradeoff(frame: pd.DataFrame, name: str) -> None:
    """Check that a trade-off frame can be reported on.

    Args:
        frame: One row per (scheduler, knob_value); both knob columns are empty for a
            policy without a knob.
        name: What to call the frame in an error.

    Raises:
        ConfigError: With the first thing that is wrong, in one line: what
            `reports.frame.check_compare` refuses, or rows of more than one rate.
    """
    check_compare(frame, name, "knob_value")
    if _KNOB not in frame:
        raise ConfigError(f"{name}: missing column(s) {_KNOB}")
    rates = frame["request_rate"].unique()
    if len(rates) > 1 or finite_rates(frame).empty:
        values = ", ".join(f"{rate:g}" for rate in rates)
        raise ConfigError(f"{name}: request_rate = {values}; expected one finite rate")
