"""The trade-off frame: policies at one rate, each with several values of its knob."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from reports.frame import check_compare, finite_rates, read_table
from reports.pareto import pareto_front
from reports.text_plot import WIDTH, Mark, letters_for, scatter_text
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


def tradeoff_text(frame: pd.DataFrame) -> list[str]:
    """TTFT against TBT for a terminal: a letter a setting, large on the frontier.

    Args:
        frame: A checked trade-off frame.

    Returns:
        Lines that fit 80 columns; none where fewer than two settings have both.
    """
    points = frame[["mean_ttft_ms", "p99_itl_ms"]].to_numpy(dtype=np.float64)
    served = frame["completed"] / frame["completed"].max() == 1
    front = pareto_front(
        np.where(served.to_numpy()[:, None], points, np.nan), (True, True)
    )
    letters = letters_for(list(dict.fromkeys(frame["scheduler"].map(str))))
    marks = [
        Mark(ttft_ms / 1e3, tbt_ms, letters[name], bool(on))
        for (ttft_ms, tbt_ms), name, on in zip(
            points.tolist(), frame["scheduler"].map(str), front, strict=True
        )
    ]
    lines = scatter_text(marks, "mean TTFT (s)", "p99 TBT (ms)")
    if not lines:
        return []
    names = ", ".join(f"{letter} {name}" for name, letter in letters.items())
    rate = frame["request_rate"].iloc[0]
    title = f"TTFT against TBT at {rate:g} req/s: {names}; capital: nothing beats it"
    return [*textwrap.wrap(title, WIDTH), *lines]


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
