"""Tables as columns against what pandas writes of the same data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from sim.table import Column, PartlyKnown, Table
from tests.cases import cases

_INT64 = st.integers(-(2**63), 2**63 - 1)
_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


def _array(values: list[object], dtype: type) -> Column:
    return np.array(values, dtype=dtype)


@st.composite
def _tables(draw: st.DrawFn) -> Table:
    """Two to five columns of any kind, under any names that differ."""
    rows = draw(st.integers(0, 12))

    def of(values: st.SearchStrategy[object]) -> st.SearchStrategy[list[object]]:
        return st.lists(values, min_size=rows, max_size=rows)

    known = of(st.booleans()).map(lambda k: np.array(k, dtype=np.bool_))
    integers = of(_INT64).map(lambda v: _array(v, np.int64))
    columns = st.one_of(
        integers,
        st.builds(PartlyKnown, integers, known),
        of(st.floats()).map(lambda v: _array(v, np.float64)),
        of(st.booleans()).map(lambda v: _array(v, np.bool_)),
        of(_WORDS).map(lambda v: _array(v, object)),
    )
    return Table(draw(st.dictionaries(_WORDS, columns, min_size=2, max_size=5)))


@cases(300)
@given(_tables())
def test_csv_is_that_of_pandas(table: Table) -> None:
    """Byte for byte, of integers, floats, words and what is missing."""
    assert table.csv() == table.frame.to_csv(index=False, lineterminator="\n")


def test_csv_of_many_rows() -> None:
    """Rows are turned into text a part at a time; none is lost between two parts."""
    numbers = np.arange(25_000)
    table = Table({"n": numbers, "x": numbers / 7})
    assert len(table) == 25_000
    assert table.csv() == table.frame.to_csv(index=False, lineterminator="\n")


def test_integers_that_are_partly_known() -> None:
    """They stay exact beyond what a float holds, and the frame does not alias them."""
    column = PartlyKnown(np.array([2**53 + 1, 7]), np.array([True, False]))
    frame = Table({"n": column}).frame
    assert frame["n"].dtype == pd.Int64Dtype()
    assert frame["n"][0] == 2**53 + 1
    assert frame["n"].isna().tolist() == [False, True]
    frame.loc[0, "n"] = 0
    assert column.values[0] == 2**53 + 1


def test_a_table_of_nothing() -> None:
    """No column is no row, and an empty frame."""
    assert len(Table()) == 0
    assert Table().frame.empty


def test_a_run_is_simulated_and_written_without_pandas(tmp_path: Path) -> None:
    """Loading it would take longer than a short run; checks use its frames."""
    script = (
        "import sys\n"
        "from sim.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print('pandas' in sys.modules)\n"
    )
    words = ["run", "--iterations", "--set", "workload.num_requests=2", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"SERVESCOPE_CHECK": "0"},
    )
    assert done.stdout == "False\n"
    assert (tmp_path / "iterations.csv.gz").exists()
