"""Per-request logs of real servers: what arrived, and how long each request took.

Two public formats, told apart by their header:

* LLMServingSim (casys-kaist/LLMServingSim, bench): times in seconds on the engine's
  clock; a request counts from ``queued_s``, because client and engine clocks differ.
* llm-d (llm-d/llm-d-benchmark, collected per-request data): one run per ``scenario``
  and ``qps``; ``ttft_s`` and ``generation_s`` are durations. A request with a
  ``session_id`` is a round of a conversation (multi-round QA of vLLM's production
  stack): its prompt begins with the prompt and the answer of the round before, which a
  prefix cache may find.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.config_errors import clip, one_line
from sim.errors import ConfigError
from sim.input_csv import csv_rows
from sim.prefix import NOTHING_SHARED, Prefix
from sim.request import Request
from sim.units import ns_from_s
from workloads.limits import MAX_REQUESTS, MAX_TIME_S, MAX_TOKENS
from workloads.workload import Workload

_MS_PER_S: Final = 1e3
_LENGTHS: Final = ("input_tokens", "output_tokens")
_SCENARIO: Final = "scenario"
_SESSION: Final = "session_id"
_ROW: Final = "row"
_DECIMAL: Final = re.compile(r"[0-9.eE+-]+")


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """Requests of one run of a server, in order of arrival.

    Attributes:
        name: Scenario and rate, or the file's name.
        scenario: Runs of one scenario differ in their rate only.
        workload: What arrived; the first request arrives at 0.
        ttft_ms: Time to first token, shape (n,).
        tpot_ms: Mean time per output token after the first, shape (n,); NaN for a
            single token.
    """

    name: str
    scenario: str
    workload: Workload
    ttft_ms: NDArray[np.float64]
    tpot_ms: NDArray[np.float64]


def read_request_log(path: Path) -> tuple[LoggedRun, ...]:
    """Read a per-request log, gzipped if its name ends in .gz.

    Raises:
        ConfigError: In one line, if the file is missing, has none of the known headers
            or holds a value that cannot be.
    """
    where = one_line(str(path))
    rows = csv_rows(path)
    _, header = next(rows, (1, []))
    for columns, parse in _FORMATS.items():
        if columns <= set(header):
            table = _table(where, header, columns, rows)
            return parse(one_line(path.name), table)
    known = " or ".join(",".join(sorted(columns)) for columns in _FORMATS)
    raise ConfigError(f"{where}: unknown header; allowed: a CSV table with {known}")


def _table(
    where: str,
    header: list[str],
    columns: frozenset[str],
    rows: Iterator[tuple[int, list[str]]],
) -> pd.DataFrame:
    """The columns of a format, checked and as numbers, and the number of each row."""
    twice = next((name for name in columns if header.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{where}: column {twice} twice; allowed: once")
    columns |= {_SESSION}.intersection(header)
    places = {name: header.index(name) for name in sorted(columns)}
    values: dict[str, list[object]] = {_ROW: [], **{name: [] for name in places}}
    for number, (_, row) in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ConfigError(
                f"{where}: row {number}: {len(row)} fields; allowed: {len(header)}"
            )
        if len(values[_ROW]) == MAX_REQUESTS:
            raise ConfigError(f"{where}: more rows; allowed: 1..{MAX_REQUESTS}")
        values[_ROW].append(number)
        for name, place in places.items():
            values[name].append(_cell(f"{where}: row {number}", name, row[place]))
    if not values[_ROW]:
        raise ConfigError(f"{where}: 0 rows; allowed: 1..{MAX_REQUESTS}")
    return pd.DataFrame(values)


def _cell(where: str, column: str, text: str) -> float | int | str:
    """A cell as what its column holds."""
    if column == _SCENARIO:
        return clip(text)
    if column == _SESSION and not text:
        return math.nan
    whole = column in _LENGTHS
    try:
        number = float(text) if _DECIMAL.fullmatch(text) else math.nan
    except ValueError:
        number = math.nan
    low, high = (1, MAX_TOKENS) if whole else (0, MAX_TIME_S)
    if not low <= number <= high or (whole and number % 1):
        kind = "an integer" if whole else "a number"
        raise ConfigError(
            f"{where}: {column} = {clip(text)}; allowed: {kind} in {low:g}..{high:g}"
        )
    return int(number) if whole else number


def _serving_sim(name: str, table: pd.DataFrame) -> tuple[LoggedRun, ...]:
    first_s = table["first_token_s"]
    run = table.assign(
        arrival=table["queued_s"],
        ttft=first_s - table["queued_s"],
        decode=table["last_token_s"] - first_s,
    )
    return (_run(name, name, name, run),)


def _llm_d(name: str, table: pd.DataFrame) -> tuple[LoggedRun, ...]:
    table = table.assign(
        arrival=table["arrival_s"], ttft=table["ttft_s"], decode=table["generation_s"]
    )
    return tuple(
        _run(name, f"{scenario} {qps:g}", str(scenario), part)
        for (scenario, qps), part in table.groupby([_SCENARIO, "qps"])
    )


_FORMATS: Final[
    Mapping[frozenset[str], Callable[[str, pd.DataFrame], tuple[LoggedRun, ...]]]
] = MappingProxyType(
    {
        frozenset({*_LENGTHS, "queued_s", "first_token_s", "last_token_s"}): (
            _serving_sim
        ),
        frozenset(
            {*_LENGTHS, _SCENARIO, "qps", "arrival_s", "ttft_s", "generation_s"}
        ): _llm_d,
    }
)


def _run(file: str, name: str, scenario: str, table: pd.DataFrame) -> LoggedRun:
    """Requests in order of arrival; durations must not be negative."""
    table = table.sort_values("arrival", kind="stable")
    for column in ("ttft", "decode"):
        worst = int(table[column].argmin())
        value = table[column].iloc[worst]
        if value < 0:
            where = f"{file}: row {table[_ROW].iloc[worst]}"
            raise ConfigError(f"{where}: {name}: {column} = {value:g} s; allowed: >= 0")
    start_s = table["arrival"].iloc[0]
    rows = zip(
        table["arrival"].tolist(),
        *(table[key].tolist() for key in _LENGTHS),
        _prefixes(table),
        strict=True,
    )
    requests = tuple(
        Request(
            id=k,
            arrival_ns=ns_from_s(arrival_s - start_s),
            prompt_tokens=int(prompt),
            output_tokens=int(output),
            prefix=prefix,
        )
        for k, (arrival_s, prompt, output, prefix) in enumerate(rows)
    )
    gaps = table["output_tokens"].to_numpy(dtype=np.float64) - 1
    decode_ms = table["decode"].to_numpy(dtype=np.float64) * _MS_PER_S
    return LoggedRun(
        name=name,
        scenario=scenario,
        workload=Workload(name=name, requests=requests),
        ttft_ms=table["ttft"].to_numpy(dtype=np.float64) * _MS_PER_S,
        tpot_ms=np.where(gaps > 0, decode_ms / np.maximum(gaps, 1), np.nan),
    )


def _prefixes(table: pd.DataFrame) -> list[Prefix]:
    """What each request shares with earlier ones: the conversation before it.

    Round n of a session is the whole conversation so far and a new question; segments
    are new text and answers in turn, numbered as in :mod:`workloads.sessions`. A prompt
    that is shorter than the conversation before it begins a new one.
    """
    if _SESSION not in table:
        return [NOTHING_SHARED] * len(table)
    so_far: dict[float, Prefix] = {}
    prefixes = []
    columns = (table[key].tolist() for key in (_SESSION, *_LENGTHS))
    for k, (session, prompt, output) in enumerate(zip(*columns, strict=True)):
        if math.isnan(session):
            prefixes.append(NOTHING_SHARED)
            continue
        before = so_far.get(session, NOTHING_SHARED)
        if before.ends and before.ends[-1] >= prompt:
            before = NOTHING_SHARED
        so_far[session] = Prefix(
            (*before.segments, 2 * k, 2 * k + 1),
            (*before.ends, prompt, prompt + output),
        )
        prefixes.append(so_far[session])
    return prefixes
