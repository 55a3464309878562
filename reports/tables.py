"""Tables of a comparison, for the terminal and for Markdown files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from reports.frame import caption, change_percent, policy_order, readable, short_policy
from sim.errors import ConfigError

_UNKNOWN: Final = "-"
_POLICY: Final = "scheduler"
_RATE: Final = "rate_req_s"
_HIT_RATE: Final = "prefix_cache_hit_rate"


@dataclass(frozen=True, slots=True)
class _Column:
    """How one quantity of `readable` is headed and rounded."""

    title: str
    statistic: str = ""
    unit: str = ""
    decimals: int = 2

    def heading(self, unit: str) -> str:
        """Two short lines: the quantity, then its statistic and unit."""
        return f"{self.title}\n{self.statistic} {unit}".replace("\n ", "\n")


_COLUMNS: Final = {
    _RATE: _Column("Rate", unit="req/s"),
    _POLICY: _Column("Policy"),
    "mean_ttft_s": _Column("TTFT", "mean", "s"),
    "p99_ttft_s": _Column("TTFT", "p99", "s"),
    "p99_tbt_ms": _Column("TBT", "p99", "ms", 1),
    "mean_e2e_s": _Column("E2E", "mean", "s"),
    "goodput_req_s": _Column("Goodput", unit="req/s"),
    "slo_percent": _Column("SLO", unit="%", decimals=1),
    "energy_mj_token": _Column("Energy", unit="mJ/tok", decimals=1),
    "expert_gb_request": _Column("Experts", unit="GB/req", decimals=1),
}
_CHANGES: Final = [key for key in _COLUMNS if key not in {_RATE, _POLICY}]


def comparison_table(frame: pd.DataFrame) -> Table:
    """Build the terminal table of a comparison; it fits 80 columns.

    Args:
        frame: A checked compare frame.

    Returns:
        A rich table, one row per rate and policy, with a gap between rates.
    """
    values = readable(frame)
    table = _empty_table(caption(frame))
    for key, column in _COLUMNS.items():
        table.add_column(
            column.heading(column.unit),
            justify="left" if key == _POLICY else "right",
        )
    values[_POLICY] = values[_POLICY].map(short_policy)
    ends_rate = ~values.duplicated(_RATE, keep="last")
    for cells, ends in zip(_cells(values, _COLUMNS), ends_rate, strict=True):
        table.add_row(*cells, end_section=bool(ends))
    return table


def gpu_table(frame: pd.DataFrame) -> Table:
    """Build the table of what one GPU does and draws, for pools and policies alike.

    Args:
        frame: A checked compare frame with the columns of ``result.json``.

    Returns:
        A rich table, one row per rate and policy, in the order of the comparison.
    """
    table = _empty_table("per GPU, and KV caches moved between replicas")
    for title in ("Rate\nreq/s", "Policy"):
        table.add_column(title, justify="left" if title == "Policy" else "right")
    for title in (
        "GPUs",
        "Goodput\nreq/s/GPU",
        "Tokens\ntok/s/GPU",
        "Power\nW/GPU",
        "Energy\nkJ/GPU",
        "KV moved\nGB",
    ):
        table.add_column(title, justify="right")
    caching = _HIT_RATE in frame and bool(frame[_HIT_RATE].notna().any())
    if caching:
        table.add_column("Prefix\nhits %", justify="right")
    rank = {name: place for place, name in enumerate(policy_order(frame))}
    ordered = frame.assign(_rank=frame[_POLICY].map(rank))
    for row in ordered.sort_values(["request_rate", "_rank"]).to_dict("records"):
        gpus = row["num_gpus"]
        table.add_row(
            _text(row["request_rate"], 2),
            short_policy(row[_POLICY]),
            f"{gpus:g}",
            _text(row["request_goodput"] / gpus, 3),
            _text(row["total_token_throughput"] / gpus, 0),
            _text(row["mean_power_w"] / gpus, 0),
            _text(row["energy_per_gpu_j"] / 1e3, 1),
            _text(row["kv_transfer_bytes"] / 1e9, 1),
            *([_text(row[_HIT_RATE] * 100, 1)] if caching else ()),
        )
    return table


def summary_table(frame: pd.DataFrame) -> Table:
    """Build the table of layered against chunked prefill at each rate.

    Args:
        frame: A checked compare frame.

    Returns:
        A rich table of changes in % (of SLO attainment, in percentage points); it has
        no rows if the frame lacks one of the two policies.
    """
    table = _empty_table("layered against chunked prefill: change in %")
    table.add_column(_COLUMNS[_RATE].heading("req/s"), justify="right")
    for key in _CHANGES:
        unit = "points" if key == "slo_percent" else "%"
        table.add_column(_COLUMNS[key].heading(unit), justify="right")
    for row in change_percent(frame)[[_RATE, *_CHANGES]].itertuples(index=False):
        rate, *changes = row
        table.add_row(_text(rate, 2), *(_text(change, 1, "+") for change in changes))
    return table


def markdown_table(
    frame: pd.DataFrame, columns: Sequence[str] = tuple(_COLUMNS)
) -> str:
    """Write a comparison as a Markdown table.

    Args:
        frame: A checked compare frame.
        columns: Which quantities, named as the columns of `reports.frame.readable`.

    Returns:
        The lines of the table, ending in a newline.

    Raises:
        ConfigError: A column is not one of those the tables know.
    """
    if unknown := [key for key in columns if key not in _COLUMNS]:
        allowed = ", ".join(_COLUMNS)
        raise ConfigError(f"table column = {unknown[0]}; expected one of {allowed}")
    rule = [":---" if key == _POLICY else "---:" for key in columns]
    rows = [[_markdown_heading(_COLUMNS[key]) for key in columns], rule]
    rows += _cells(readable(frame), columns)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _empty_table(title: str) -> Table:
    """A table without columns, in the terminal's own colours."""
    return Table(title=title, box=SIMPLE_HEAD, show_edge=False, padding=0)


def _markdown_heading(column: _Column) -> str:
    """One line, with the unit in brackets."""
    words = [column.title, column.statistic, f"({column.unit})"]
    return " ".join(word for word in words if word not in {"", "()"})


def _cells(values: pd.DataFrame, keys: Iterable[str]) -> list[list[str]]:
    """The rows of a table as text."""
    chosen = list(keys)
    return [
        [
            str(value) if key == _POLICY else _text(value, _COLUMNS[key].decimals)
            for key, value in zip(chosen, row, strict=True)
        ]
        for row in values[chosen].itertuples(index=False, name=None)
    ]


def _text(value: float | str, decimals: int, sign: str = "") -> str:
    """A number at fixed decimals, or a dash if it is not known."""
    number = float(value)
    return _UNKNOWN if math.isnan(number) else f"{number:{sign}.{decimals}f}"
