"""Strict reader of CSV traces: ``arrived_at,num_prefill_tokens,num_decode_tokens``.

The columns of Vidur and Sarathi-Serve (microsoft/vidur, microsoft/sarathi-serve):
seconds since the start, prompt tokens, output tokens; other columns are ignored. A file
without ``arrived_at`` holds lengths only. Times are kept, not moved to start at 0.
JSON Lines are read by :mod:`workloads.mooncake`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from sim.input_csv import csv_rows
from sim.units import ns_from_s, s_from_ns
from workloads.limits import MAX_REQUESTS, MAX_TIME_S, MAX_TOKENS
from workloads.mooncake import is_mooncake, read_mooncake
from workloads.trace import Trace, bad_value

__all__ = ["Trace", "read_trace"]

ARRIVAL: Final = "arrived_at"
PROMPT: Final = "num_prefill_tokens"
OUTPUT: Final = "num_decode_tokens"
_MAX_DIGITS: Final = len(str(MAX_TOKENS))
_DECIMAL: Final = re.compile(r"[0-9.eE+-]+")


def read_trace(path: str) -> Trace:
    """Read and check a trace: JSON Lines if its name says so, else CSV.

    Args:
        path: File to read; UTF-8, BOM and CRLF accepted, unpacked if it ends in .gz.

    Returns:
        Its rows, at least one.

    Raises:
        ConfigError: On the first thing wrong, naming file, line, column and value.
    """
    if is_mooncake(path):
        return read_mooncake(path)
    return _parse(path, csv_rows(Path(path)))


def _parse(path: str, rows: Iterator[tuple[int, list[str]]]) -> Trace:
    line, header = next(rows, (1, []))
    column = _columns(path, line, header)
    times: list[int] = []
    lengths: dict[str, list[int]] = {PROMPT: [], OUTPUT: []}
    last_ns = 0
    for line, row in rows:
        if len(row) != len(header):
            raise bad_value(path, line, "fields", len(row), str(len(header)))
        for name, values in lengths.items():
            text = row[column[name]]
            tokens = _tokens(text)
            if tokens is None:
                raise bad_value(
                    path, line, name, text, f"an integer in 1..{MAX_TOKENS}"
                )
            values.append(tokens)
        if ARRIVAL in column:
            last_ns = _time_ns(path, line, row[column[ARRIVAL]], last_ns)
            times.append(last_ns)
        if len(lengths[PROMPT]) > MAX_REQUESTS:
            raise bad_value(path, line, "rows", "more", f"at most {MAX_REQUESTS}")
    if not lengths[PROMPT]:
        raise bad_value(path, line, "rows", 0, "at least 1")
    return Trace(
        path=path,
        arrival_ns=np.array(times, dtype=np.int64) if ARRIVAL in column else None,
        prompt_tokens=np.array(lengths[PROMPT], dtype=np.int64),
        output_tokens=np.array(lengths[OUTPUT], dtype=np.int64),
    )


def _columns(path: str, line: int, header: list[str]) -> dict[str, int]:
    """Position of each known column."""
    for name in (PROMPT, OUTPUT):
        if name not in header:
            raise bad_value(
                path, line, name, "missing", f"a header with {PROMPT},{OUTPUT}"
            )
    known = (ARRIVAL, PROMPT, OUTPUT)
    for name in known:
        if header.count(name) > 1:
            raise bad_value(path, line, name, "twice", "each column once")
    return {name: header.index(name) for name in known if name in header}


def _tokens(text: str) -> int | None:
    """A plain decimal in 1..MAX_TOKENS, else None."""
    if len(text) > _MAX_DIGITS or not (text.isascii() and text.isdigit()):
        return None
    tokens = int(text)
    return tokens if 1 <= tokens <= MAX_TOKENS else None


def _time_ns(path: str, line: int, text: str, last_ns: int) -> int:
    """A decimal number of seconds, in ns, not before the row above."""
    try:
        # The pattern also keeps out "nan", "inf", "1_0" and other digits than ASCII.
        seconds = float(text) if _DECIMAL.fullmatch(text) else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_TIME_S:
        raise bad_value(path, line, ARRIVAL, text, f"seconds in 0..{MAX_TIME_S:g}")
    time_ns = ns_from_s(seconds)
    if time_ns < last_ns:
        allowed = f"sorted times, here >= {s_from_ns(last_ns)!r}"
        raise bad_value(path, line, ARRIVAL, text, allowed)
    return time_ns
