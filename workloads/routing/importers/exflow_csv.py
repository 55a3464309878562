"""Traces of expert ids, a token per row and a layer per column, as ExFlow takes."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from sim.config_errors import one_line
from sim.errors import ConfigError
from sim.input_file import read_bytes
from sim.routing_stats import RoutingStats
from workloads.routing.importers.options import ImportOptions
from workloads.routing.load_file import numbers
from workloads.routing.measure import measure

_MAX_EXPERTS = 4096


def read_exflow(path: Path, options: ImportOptions) -> RoutingStats:
    """Statistics of a top-1 trace in CSV; a first row of names is skipped.

    Raises:
        ConfigError: If a row is ragged or holds anything but expert numbers.
    """
    where = one_line(str(path))
    try:
        text = read_bytes(path).decode("utf-8-sig")
        rows = list(filter(None, csv.reader(io.StringIO(text), strict=True)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{where}: not CSV in UTF-8: {error}") from None
    if rows and not all(cell.strip().isdigit() for cell in rows[0]):
        rows = rows[1:]
    table = numbers(rows, where, "trace")
    if table.ndim != 2 or not table.size:
        raise ConfigError(f"{where}: trace: must be tokens x layers of expert numbers")
    return routed_stats(table[:, :, None], where)


def routed_stats(table: np.ndarray, where: str) -> RoutingStats:
    """Statistics of expert numbers, shape (tokens, layers, top_k).

    Raises:
        ConfigError: If they are not whole numbers from 0 on.
    """
    whole = np.isfinite(table).all() and (table == np.rint(table)).all()
    if not whole or table.min() < 0 or table.max() >= _MAX_EXPERTS:
        raise ConfigError(
            f"{where}: expert numbers must be integers from 0 to {_MAX_EXPERTS - 1}"
        )
    experts = int(table.max()) + 1
    if (np.diff(np.sort(table, axis=2), axis=2) == 0).any():
        raise ConfigError(f"{where}: a token holds the same expert twice in a layer")
    return measure(table.astype(np.int16), experts)
