"""Tables of sweep points, and the quantities a frontier is drawn in."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from sim.errors import ConfigError
from sim.input_file import LARGEST_FILE_BYTES, open_regular

_MS_PER_S: Final = 1e3


@dataclass(frozen=True, slots=True)
class Objective:
    """A quantity that is better small or better large.

    Attributes:
        label: Axis label, with the unit.
        minimise: Whether small is good.
        of: Its values from a table of points, NaN where it does not exist.
    """

    label: str
    minimise: bool
    of: Callable[[pd.DataFrame], pd.Series]


def _column(name: str, factor: float = 1.0) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda frame: frame[name].astype(float) * factor


OBJECTIVES: Final[Mapping[str, Objective]] = {
    "ttft": Objective("Mean TTFT (s)", True, _column("mean_ttft_ms", 1 / _MS_PER_S)),
    "p99_ttft": Objective("p99 TTFT (s)", True, _column("p99_ttft_ms", 1 / _MS_PER_S)),
    "tbt": Objective("p99 TBT (ms)", True, _column("p99_itl_ms")),
    "tpot": Objective("Mean TPOT (ms)", True, _column("mean_tpot_ms")),
    "e2e": Objective("Mean E2E (s)", True, _column("mean_e2el_ms", 1 / _MS_PER_S)),
    "energy": Objective("Energy (J/token)", True, _column("energy_per_token_j")),
    "cost": Objective(
        "Cost (USD / million tokens)", True, _column("usd_per_million_tokens")
    ),
    "goodput": Objective("Goodput (req/s)", False, _column("request_goodput")),
    "slo": Objective("SLO attainment (%)", False, _column("slo_attainment", 100.0)),
    "user_speed": Objective(
        "Speed per user (tokens/s/user)",
        False,
        lambda frame: _MS_PER_S / frame["mean_tpot_ms"].astype(float),
    ),
    "gpu_speed": Objective(
        "Throughput per GPU (tokens/s/GPU)",
        False,
        lambda frame: frame["output_throughput"].astype(float) / frame["num_gpus"],
    ),
    "gpus": Objective("GPUs", True, _column("num_gpus")),
}
"""Quantities by short name; any other numeric column can be named itself."""


def read_points(path: Path) -> pd.DataFrame:
    """Read a ``points.csv``, or the one in a sweep's folder; failed rows are left out.

    Raises:
        ConfigError: If it is missing, is no such table or has no finished point.
    """
    file = path / "points.csv" if path.is_dir() else path
    try:
        with open_regular(file) as stream:
            content = stream.read(LARGEST_FILE_BYTES)
        frame = pd.read_csv(io.BytesIO(content), low_memory=False)  # noqa: TID251
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; run `servescope sweep`") from None
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{file}: not a readable CSV table: {reason}") from None
    if missing := [name for name in ("status", "scheduler") if name not in frame]:
        raise ConfigError(f"{file}: missing column(s) {', '.join(missing)}")
    frame = frame[frame["status"] == "ok"].reset_index(drop=True)
    if frame.empty:
        raise ConfigError(f"{file}: no finished point")
    return frame


def objective(text: str, frame: pd.DataFrame) -> Objective:
    """The objective of a name: short, or a column with ":min" or ":max".

    Raises:
        ConfigError: If there is none such.
    """
    name, _, way = text.partition(":")
    if way not in ("", "min", "max"):
        raise ConfigError(f'metric "{text}": after ":" must be min or max')
    known = OBJECTIVES.get(name)
    if known is not None:
        minimise = known.minimise if not way else way == "min"
        return Objective(known.label, minimise, known.of)
    if name in frame and pd.api.types.is_numeric_dtype(frame[name]):
        if not way:
            raise ConfigError(f'metric "{name}": say "{name}:min" or "{name}:max"')
        return Objective(name, way == "min", _column(name))
    raise ConfigError(
        f'metric "{name}": no such metric; allowed: {", ".join(OBJECTIVES)}, or a'
        " numeric column of the table with :min or :max"
    )


def averaged(frame: pd.DataFrame, keys: tuple[str, ...]) -> pd.DataFrame:
    """One row per setting: means over seeds, the first of what is no number.

    A setting with an unstable replication has no latencies.
    """
    if "seed" not in frame or not keys:
        return frame
    numeric = frame.select_dtypes("number").columns.difference([*keys, "seed"])
    rules = {
        name: "mean" if name in numeric else "first"
        for name in frame.columns
        if name not in keys
    }
    groups = frame.groupby(list(keys), sort=False, dropna=False)
    mean = groups.agg(rules).copy().reset_index()  # in one piece, then one more column
    if "unstable" in frame:
        mean["unstable"] = groups["unstable"].any().to_numpy()
    return mean[[name for name in frame.columns if name in mean]]


def values_of(frame: pd.DataFrame, objectives: tuple[Objective, ...]) -> np.ndarray:
    """Objectives of each row, shape (n, d); NaN where the queue grew."""
    columns = [o.of(frame).to_numpy(dtype=np.float64) for o in objectives]
    values = np.column_stack(columns)
    if "unstable" in frame:
        values[frame["unstable"].astype(bool).to_numpy()] = np.nan
    return values
