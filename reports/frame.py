"""The compare frame: read, checked, and put into the units people read."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from sim.errors import ConfigError
from sim.input_file import open_regular

COMPARE_FILE: Final = "compare.csv"
BASELINE: Final = "chunked-prefill"
CANDIDATE: Final = "layered-prefill"
ENERGY_PARTS: Final = ("run", "wait", "hbm", "flop", "idle")

_POLICY_ORDER: Final = (BASELINE, CANDIDATE, "orca", "static")
_TEXT: Final = ("scheduler", "model", "gpu", "dataset", "profile")
_SHARED: Final = (*_TEXT[1:], "num_gpus", "slo_ttft_ms", "slo_itl_ms")
_NUMBERS: Final = (
    "request_rate",
    "completed",
    "mean_ttft_ms",
    "p99_ttft_ms",
    "p99_itl_ms",
    "mean_e2el_ms",
    "request_goodput",
    "slo_attainment",
    "energy_j",
    "energy_per_token_j",
    *(f"energy_{part}_j" for part in ENERGY_PARTS),
    "expert_weight_bytes",
    "num_gpus",
    "slo_ttft_ms",
    "slo_itl_ms",
)
_LARGEST_BYTES: Final = 1 << 29  # the requests of a run of a few million
_MS_PER_S: Final = 1e3
_MJ_PER_J: Final = 1e3
_BYTES_PER_GB: Final = 1e9
_BYTES_PER_TB: Final = 1e12


def read_compare(path: Path) -> pd.DataFrame:
    """Read and check a ``compare.csv``.

    Args:
        path: The file; one row per (scheduler, request_rate).

    Returns:
        The frame as written, in the writer's units.

    Raises:
        ConfigError: The file is missing, is no table, or fails `check_compare`.
    """
    frame = read_table(path)
    check_compare(frame, str(path))
    return frame


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV table that ``servescope compare`` wrote.

    Raises:
        ConfigError: The file is missing or is no table.
    """
    try:
        with open_regular(path) as file:
            stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            content = stream.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise ConfigError(
                f"{path}: too large; allowed: at most {_LARGEST_BYTES} bytes unpacked"
            )
        return pd.read_csv(io.BytesIO(content))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; run `servescope compare`") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{path}: not a readable CSV table: {reason}") from None


def check_compare(frame: pd.DataFrame, name: str, key: str = "request_rate") -> None:
    """Check that a compare frame can be reported on.

    Every number must be finite and >= 0, or NaN where it is not known; only
    ``request_rate`` may be infinite (all at once). All rows describe one model,
    cluster, dataset, profile and pair of SLOs.

    Args:
        frame: One row per (scheduler, ``key``).
        name: What to call the frame in an error.
        key: The column that tells the rows of a scheduler apart.

    Raises:
        ConfigError: With the first thing that is wrong, in one line.
    """
    required = dict.fromkeys((*_TEXT, *_NUMBERS, key))
    if missing := [column for column in required if column not in frame]:
        raise ConfigError(f"{name}: missing column(s) {', '.join(missing)}")
    if frame.empty:
        raise ConfigError(f"{name}: no rows; expected one per scheduler and {key}")
    for column in dict.fromkeys((*_NUMBERS, key)):
        _check_numbers(frame[column], name)
    for column in _SHARED:
        if frame[column].nunique(dropna=False) > 1:
            values = ", ".join(str(value) for value in frame[column].unique())
            raise ConfigError(f"{name}: {column} = {values}; all rows must agree")
    if (repeated := frame.duplicated(["scheduler", key])).any():
        row = frame.loc[repeated].iloc[0]
        raise ConfigError(
            f"{name}: scheduler = {row['scheduler']}, {key} ="
            f" {row[key]:g} appears twice; expected one row each"
        )


def _check_numbers(values: pd.Series, name: str) -> None:
    """Refuse the first entry of a column that is out of its range."""
    column = str(values.name)
    numbers = pd.to_numeric(values, errors="coerce")
    if column == "request_rate":
        wrong, allowed = numbers <= 0, "a number > 0, inf or empty"
    elif column == "slo_attainment":
        wrong, allowed = (numbers < 0) | (numbers > 1), "a number in [0, 1] or empty"
    else:
        wrong = (numbers < 0) | np.isinf(numbers)
        allowed = "a finite number >= 0 or empty"
    wrong |= numbers.isna() & values.notna()
    if wrong.any():
        value = values[wrong].iloc[0]
        raise ConfigError(f"{name}: {column} = {value}; expected {allowed}")


def finite_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that have a place on a rate axis (not closed loop, not all at once)."""
    return frame[np.isfinite(frame["request_rate"].astype(float))]


def policy_order(frame: pd.DataFrame) -> list[str]:
    """Schedulers in the frame: the known ones first, then the rest by name."""
    present = set(frame["scheduler"])
    known = [name for name in _POLICY_ORDER if name in present]
    return known + sorted(present.difference(known))


def short_policy(name: str) -> str:
    """A policy's name for a narrow column: "layered+sjf", "chunked@1p3d"."""
    return name.replace("-prefill", "")


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Derive the reported quantities, with the unit last in every column name.

    Per token means prompt + output tokens; per request, completed requests.

    Args:
        frame: A checked compare frame.

    Returns:
        One row per input row, sorted by rate and then policy: ``scheduler``,
        ``rate_req_s``, latencies, goodput, SLO attainment, energy per token (total
        and by part) and expert traffic. A ratio without a denominator is NaN.
    """
    completed = frame["completed"].where(frame["completed"] > 0)
    tokens = frame["energy_j"] / frame["energy_per_token_j"].where(
        frame["energy_per_token_j"] > 0
    )
    columns = {
        "scheduler": frame["scheduler"],
        "rate_req_s": frame["request_rate"].astype(float),
        "mean_ttft_s": frame["mean_ttft_ms"] / _MS_PER_S,
        "p99_ttft_s": frame["p99_ttft_ms"] / _MS_PER_S,
        "p99_tbt_ms": frame["p99_itl_ms"],
        "mean_e2e_s": frame["mean_e2el_ms"] / _MS_PER_S,
        "goodput_req_s": frame["request_goodput"],
        "slo_percent": frame["slo_attainment"] * 100,
        "energy_mj_token": frame["energy_per_token_j"] * _MJ_PER_J,
        **{
            f"energy_{part}_mj_token": frame[f"energy_{part}_j"] / tokens * _MJ_PER_J
            for part in ENERGY_PARTS
        },
        "expert_tb": frame["expert_weight_bytes"] / _BYTES_PER_TB,
        "expert_gb_request": frame["expert_weight_bytes"] / completed / _BYTES_PER_GB,
    }
    rank = {name: place for place, name in enumerate(policy_order(frame))}
    result = pd.DataFrame(columns).assign(_rank=frame["scheduler"].map(rank))
    result = result.sort_values(["rate_req_s", "_rank"], ignore_index=True)
    return result.drop(columns="_rank")


def change_percent(frame: pd.DataFrame) -> pd.DataFrame:
    """How layered prefill differs from chunked prefill at the same rate.

    Args:
        frame: A checked compare frame.

    Returns:
        One row per rate both policies have: ``rate_req_s`` and, for every quantity
        of `readable`, 100 (layered / chunked - 1) in %; for ``slo_percent`` the
        difference in percentage points. NaN where the baseline is 0 or unknown.
    """
    values = readable(frame)
    by_policy = {
        name: values[values["scheduler"] == name]
        .drop(columns="scheduler")
        .set_index("rate_req_s")
        for name in (BASELINE, CANDIDATE)
    }
    shared = by_policy[BASELINE].index.intersection(by_policy[CANDIDATE].index)
    old, new = (by_policy[name].loc[shared] for name in (BASELINE, CANDIDATE))
    change = 100 * (new / old.where(old > 0) - 1)
    change["slo_percent"] = new["slo_percent"] - old["slo_percent"]
    return change.reset_index()


def caption(frame: pd.DataFrame) -> str:
    """One line saying what was simulated: model, GPUs, dataset, profile."""
    row = frame.iloc[0]
    return (
        f"{row['model']}, {row['num_gpus']:g} x {row['gpu']},"
        f" {row['dataset']}, profile {row['profile']}"
    )
