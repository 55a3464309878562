"""Per-request logs of real servers: what arrived, and how long each request took.

Two public formats, told apart by their header:

* LLMServingSim (casys-kaist/LLMServingSim, bench): times in seconds on the engine's
  clock; a request counts from ``queued_s``, because client and engine clocks differ.
* llm-d (llm-d/llm-d-benchmark, collected per-request data): one run per ``scenario``
  and ``qps``; ``ttft_s`` and ``generation_s`` are durations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.errors import ConfigError
from sim.request import Request
from sim.units import ns_from_s
from workloads.limits import MAX_REQUESTS, MAX_TIME_S, MAX_TOKENS
from workloads.workload import Workload

_MS_PER_S: Final = 1e3
_LENGTHS: Final = ("input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """Requests of one run of a server, in order of arrival.

    Attributes:
        name: Scenario and rate, or the file's name.
        workload: What arrived; the first request arrives at 0.
        ttft_ms: Time to first token, shape (n,).
        tpot_ms: Mean time per output token after the first, shape (n,); NaN for a
            single token.
    """

    name: str
    workload: Workload
    ttft_ms: NDArray[np.float64]
    tpot_ms: NDArray[np.float64]


def read_request_log(path: Path) -> tuple[LoggedRun, ...]:
    """Read a per-request log, gzipped if its name ends in .gz.

    Raises:
        ConfigError: In one line, if the file is missing, has none of the known headers
            or holds a value that cannot be.
    """
    try:
        table = pd.read_csv(path)
    except OSError as error:
        reason = error.strerror or "not a readable file"
        raise ConfigError(f"{path}: {reason}; allowed: a CSV file") from None
    except (ValueError, EOFError) as error:  # pandas' parser errors are ValueErrors
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: {reason}; allowed: a CSV table") from None
    for columns, parse in _FORMATS.items():
        if columns <= set(table.columns):
            _check_numbers(path, table, columns)
            return parse(path, table)
    known = " or ".join(",".join(sorted(columns)) for columns in _FORMATS)
    raise ConfigError(f"{path}: unknown header; allowed: a table with {known}")


def _serving_sim(path: Path, table: pd.DataFrame) -> tuple[LoggedRun, ...]:
    first_s = table["first_token_s"]
    run = table.assign(
        arrival=table["queued_s"],
        ttft=first_s - table["queued_s"],
        decode=table["last_token_s"] - first_s,
    )
    return (_run(path, path.name, run),)


def _llm_d(path: Path, table: pd.DataFrame) -> tuple[LoggedRun, ...]:
    table = table.assign(
        arrival=table["arrival_s"], ttft=table["ttft_s"], decode=table["generation_s"]
    )
    return tuple(
        _run(path, f"{scenario} {qps:g}", part)
        for (scenario, qps), part in table.groupby(["scenario", "qps"])
    )


_FORMATS: Final[
    Mapping[frozenset[str], Callable[[Path, pd.DataFrame], tuple[LoggedRun, ...]]]
] = MappingProxyType(
    {
        frozenset({*_LENGTHS, "queued_s", "first_token_s", "last_token_s"}): (
            _serving_sim
        ),
        frozenset({*_LENGTHS, "qps", "arrival_s", "ttft_s", "generation_s"}): _llm_d,
    }
)


def _run(path: Path, name: str, table: pd.DataFrame) -> LoggedRun:
    """Requests in order of arrival; durations must not be negative."""
    table = table.sort_values("arrival", kind="stable")
    for column in ("ttft", "decode"):
        if (table[column] < 0).any():
            value = table[column].min()
            raise ConfigError(f"{path}: {name}: {column} = {value:g} s; allowed: >= 0")
    start_s = table["arrival"].iloc[0]
    rows = zip(
        table["arrival"].tolist(),
        *(table[key].tolist() for key in _LENGTHS),
        strict=True,
    )
    requests = tuple(
        Request(
            id=k,
            arrival_ns=ns_from_s(arrival_s - start_s),
            prompt_tokens=int(prompt),
            output_tokens=int(output),
        )
        for k, (arrival_s, prompt, output) in enumerate(rows)
    )
    gaps = table["output_tokens"].to_numpy(dtype=np.float64) - 1
    decode_ms = table["decode"].to_numpy(dtype=np.float64) * _MS_PER_S
    return LoggedRun(
        name=name,
        workload=Workload(name=name, requests=requests),
        ttft_ms=table["ttft"].to_numpy(dtype=np.float64) * _MS_PER_S,
        tpot_ms=np.where(gaps > 0, decode_ms / np.maximum(gaps, 1), np.nan),
    )


def _check_numbers(path: Path, table: pd.DataFrame, columns: frozenset[str]) -> None:
    if not 1 <= len(table) <= MAX_REQUESTS:
        raise ConfigError(f"{path}: {len(table)} rows; allowed: 1..{MAX_REQUESTS}")
    for column in sorted(columns):
        values = pd.to_numeric(table[column], errors="coerce")
        whole = column in _LENGTHS
        low, high = (1.0, float(MAX_TOKENS)) if whole else (0.0, MAX_TIME_S)
        wrong = ~values.between(low, high)
        if whole:
            wrong |= values % 1 != 0
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            kind = "integers" if whole else "numbers"
            raise ConfigError(
                f"{path}: row {row + 1}: {column} = {table[column].iloc[row]};"
                f" allowed: {kind} in {low:g}..{high:g}"
            )
