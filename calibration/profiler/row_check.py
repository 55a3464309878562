"""Strict checks of one row of the kernel-timing CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from calibration.profiler.columns import (
    ENERGY,
    EVENT_NS,
    LATENCY,
    NOT_SET,
    SOURCE,
    TABLE,
    TABLES,
    TIMER,
    TIMERS,
    TOUCHED,
    WORDS,
    Kernel,
    KernelRow,
    Value,
)
from sim.config_errors import clip, one_line
from sim.errors import ConfigError

_MAY_BE_ZERO: Final = frozenset({"window_size", "prefix"})
_LARGEST: Final = 2**62  # fits int64 with room for sums
_MOST_ENERGY_MJ: Final = 1e12  # packs hold whole microjoules in 64 bits
_LONGEST_SOURCE: Final = 200
_MOST_EXPERTS: Final = 100_000  # as in a model's config.json
_INTEGER: Final = re.compile(r"[0-9]{1,19}")


def validate_row(cells: Mapping[str, str], path: Path, line: int) -> KernelRow:
    """The row that some cells spell out.

    Args:
        cells: column -> text; an absent column counts as empty.
        path: the file, for messages.
        line: its line, for messages.

    Raises:
        ConfigError: one line with file, line, column, value and what is allowed.
    """
    where = Where(path, line)
    table = cells.get(TABLE, "")
    if table not in TABLES:
        raise where.error(TABLE, table, f"one of {', '.join(TABLES)}")
    _check_unused(where, table, cells)
    values = tuple(_key(where, c, cells.get(c, ""), cells) for c in TABLES[table])
    source = cells.get(SOURCE, "").strip()
    if not source or len(source) > _LONGEST_SOURCE or not source.isprintable():
        raise where.error(
            SOURCE, source, f"1 to {_LONGEST_SOURCE} printable characters"
        )
    event = cells.get(EVENT_NS, "")
    return _consistent(
        where,
        KernelRow(
            Kernel(table, values),
            _whole(where, LATENCY, cells.get(LATENCY, ""), 1),
            _energy(where, cells.get(ENERGY, "")),
            source,
            _timer(where, cells.get(TIMER, "")),
            _whole(where, EVENT_NS, event, 1) if event else None,
        ),
    )


@dataclass(frozen=True, slots=True)
class Where:
    """A line of a file, to begin an error with."""

    path: Path
    line: int

    def error(self, column: str, value: str, allowed: str) -> ConfigError:
        """The one-line error, not raised yet."""
        return ConfigError(
            f'{one_line(str(self.path))}: line {self.line}: {column} = "{clip(value)}";'
            f" allowed: {allowed}"
        )


def _check_unused(where: Where, table: str, cells: Mapping[str, str]) -> None:
    used = {TABLE, *TABLES[table], LATENCY, ENERGY, SOURCE, TIMER, EVENT_NS}
    for column, text in cells.items():
        if column not in used and text:
            raise where.error(column, text, f"nothing in rows of {table}")


def _key(where: Where, column: str, text: str, cells: Mapping[str, str]) -> Value:
    if column in WORDS:
        if text not in WORDS[column]:
            raise where.error(column, text, f"one of {', '.join(WORDS[column])}")
        return text
    if column == "touched_experts" and cells.get("distribution") != TOUCHED:
        if text:
            raise where.error(
                column, text, f'nothing unless distribution = "{TOUCHED}"'
            )
        return NOT_SET
    return _whole(where, column, text, 0 if column in _MAY_BE_ZERO else 1)


def _whole(where: Where, column: str, text: str, least: int) -> int:
    if not _INTEGER.fullmatch(text) or not least <= int(text) <= _LARGEST:
        raise where.error(column, text, f"an integer >= {least} and <= 2**62")
    return int(text)


def _energy(where: Where, text: str) -> float | None:
    if not text:
        return None
    try:
        energy = float(text)
    except ValueError:
        energy = math.nan
    if not 0 < energy <= _MOST_ENERGY_MJ:
        allowed = f"a number > 0 and <= {_MOST_ENERGY_MJ:g}, or nothing"
        raise where.error(ENERGY, text, allowed)
    return energy


def _timer(where: Where, text: str) -> str:
    if text and text not in TIMERS:
        raise where.error(TIMER, text, f"one of {', '.join(TIMERS)}, or nothing")
    return text


def _consistent(where: Where, row: KernelRow) -> KernelRow:
    """The same row if its experts can be: touched <= all, topk <= all."""
    keys = row.kernel.keys
    if row.kernel.table != "moe":
        return row
    experts, pairs = (
        int(keys["num_experts"]),
        int(keys["topk"]) * int(keys["num_tokens"]),
    )
    for column, most in (("topk", experts), ("touched_experts", min(experts, pairs))):
        if int(keys[column]) > most:
            raise where.error(column, str(keys[column]), f"an integer <= {most}")
    if experts > _MOST_EXPERTS or experts % int(keys["moe_ep_size"]):
        allowed = f"a multiple of moe_ep_size, at most {_MOST_EXPERTS}"
        raise where.error("num_experts", str(experts), allowed)
    least = int(keys["topk"]) if keys["distribution"] == TOUCHED else NOT_SET
    if int(keys["touched_experts"]) < least:
        raise where.error(
            "touched_experts", str(keys["touched_experts"]), f"topk = {least} or more"
        )
    return row
