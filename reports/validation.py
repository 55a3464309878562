"""The report of a validation: parity plot and Markdown tables beside its CSV files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from reports.figures.parity import parity_figure
from reports.figures.save import save_figure
from reports.frame import read_table
from sim.errors import ConfigError
from sim.files import write_atomic

CASES_FILE: Final = "cases.csv"
SUMMARY_FILE: Final = "summary.csv"
MARKDOWN_FILE: Final = "cases.md"
PARITY: Final = "parity"

_CASES: Final = (
    "case",
    "kind",
    "group",
    "metric",
    "unit",
    "model",
    "gpu",
    "engine",
    "profile",
    "measured",
    "predicted",
    "lowest",
    "highest",
    "error",
)
_SUMMARY: Final = (
    "kind",
    "by",
    "of",
    "group",
    "n",
    "mape",
    "bias",
    "spearman",
    "worst_case",
    "worst_metric",
    "worst_error",
)
_KINDS: Final = {
    "validation": "Validation: no constant is fitted to these numbers",
    "calibration": "Calibration: some constant has seen these numbers",
}


def write_validation_report(directory: Path) -> list[Path]:
    """Write the Markdown tables and the parity plot of a validation.

    Args:
        directory: Where ``servescope validate`` wrote its tables.

    Returns:
        The files written.

    Raises:
        ConfigError: A table is missing or malformed, or a file cannot be written.
    """
    cases = read_checked(directory / CASES_FILE, _CASES)
    summary = read_checked(directory / SUMMARY_FILE, _SUMMARY)
    markdown = directory / MARKDOWN_FILE
    write_atomic(markdown, validation_markdown(cases, summary).encode())
    return [markdown, *save_figure(parity_figure(cases), directory, PARITY)]


def read_checked(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a table that has at least these columns and one row.

    Raises:
        ConfigError: With the first thing that is wrong, in one line.
    """
    frame = read_table(path)
    if missing := [column for column in columns if column not in frame]:
        raise ConfigError(f"{path}: missing column(s) {', '.join(missing)}")
    if frame.empty:
        raise ConfigError(f"{path}: no rows; expected at least 1")
    return frame


def validation_markdown(cases: pd.DataFrame, summary: pd.DataFrame) -> str:
    """The summary and every case as Markdown tables, validation first."""
    parts = []
    for kind, title in _KINDS.items():
        chosen = cases[cases["kind"] == kind]
        if chosen.empty:
            continue
        averages = summary[summary["kind"] == kind]
        parts += [f"**{title}**\n", _summary_table(averages), _case_table(chosen)]
    return "\n".join(parts)


def _summary_table(summary: pd.DataFrame) -> str:
    heads = ("over", "metrics", "n", "MAPE", "bias", "Spearman", "worst case")
    rows = [
        (
            row["of"],
            row["group"],
            str(row["n"]),
            plain_percent(row["mape"]),
            signed_percent(row["bias"]),
            number(row["spearman"]),
            f"{row['worst_case']}, {row['worst_metric']}"
            f" {signed_percent(row['worst_error'])}",
        )
        for row in summary.to_dict("records")
    ]
    return _table(heads, rows, text=(0, 1, 6))


def _case_table(cases: pd.DataFrame) -> str:
    heads = ("case", "engine", "profile", "metric", "measured", "predicted", "error")
    rows = [
        (
            row["case"],
            row["engine"],
            row["profile"],
            f"{row['metric'].removesuffix('_ms')}, {row['unit']}",
            number(row["measured"]),
            number(row["predicted"]),
            signed_percent(row["error"]),
        )
        for row in cases.to_dict("records")
    ]
    return _table(heads, rows, text=(0, 1, 2, 3))


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], text: tuple[int, ...]
) -> str:
    rule = tuple("---" if i in text else "---:" for i in range(len(heads)))
    return "".join(f"| {' | '.join(row)} |\n" for row in (heads, rule, *rows))


def number(value: float | None) -> str:
    """Three digits that count, all before the point; a dash if not known."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def signed_percent(value: float | None) -> str:
    """A relative error in percent; a dash if not known."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:+.1f} %"


def plain_percent(value: float | None) -> str:
    """A size in percent; a dash if not known."""
    return signed_percent(value).removeprefix("+")
