"""Parquet as pyarrow writes it; where the extra [pack] is missing, a stand-in.

The stand-in holds the same columns as JSON, so that what is done with the tables of a
wheel is tested everywhere. How Parquet is laid out is pyarrow's matter.
"""

from __future__ import annotations

import io
import json
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest

REAL = find_spec("pyarrow") is not None
"""Whether pyarrow itself is here."""


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """A frame as the file of a wheel."""
    if not REAL:
        return json.dumps({name: frame[name].tolist() for name in frame}).encode()
    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


def use_parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let :func:`calibration.wheels.read_member` read what was written so."""
    if REAL:
        return
    arrow, parquet = ModuleType("pyarrow"), ModuleType("pyarrow.parquet")
    vars(arrow).update(ArrowException=ValueError, parquet=parquet)
    vars(parquet).update(read_metadata=_metadata, read_table=_table)
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)


def _frame(file: io.BytesIO) -> pd.DataFrame:
    return pd.DataFrame(json.load(file))


def _metadata(file: io.BytesIO) -> SimpleNamespace:
    return SimpleNamespace(num_rows=len(_frame(file)))


def _table(file: io.BytesIO) -> SimpleNamespace:
    return SimpleNamespace(to_pandas=lambda: _frame(file))
