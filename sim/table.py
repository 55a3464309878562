"""Tables as columns: written without pandas, and data frames once somebody asks.

Loading pandas takes longer than many a simulation, and a run that is only written needs
nothing of it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

_ROWS: Final = 10_000  # turned into Python objects at a time


@dataclass(frozen=True, slots=True, eq=False)
class PartlyKnown:
    """Integers of which some are missing; the others stay exact beyond 2**53.

    Attributes:
        values: Anything where it is not known.
        known: Whether there is a value, of the same shape.
    """

    values: npt.NDArray[np.int64]
    known: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return self.values.size


Column = npt.NDArray[Any] | PartlyKnown


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length under their names."""

    columns: Mapping[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        """Rows."""
        return max(map(len, self.columns.values()), default=0)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The table as a data frame; integers that are partly known are Int64."""
        import pandas as pd  # noqa: PLC0415  (slow to load)

        return pd.DataFrame(
            {
                name: pd.arrays.IntegerArray(each.values.copy(), ~each.known)
                if isinstance(each, PartlyKnown)
                else each
                for name, each in self.columns.items()
            }
        )

    def csv(self) -> str:
        """The table as pandas would write it without its index.

        Floats read back exactly; NaN and what is not known are empty fields.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        for first in range(0, len(self), _ROWS):
            part = slice(first, first + _ROWS)
            writer.writerows(
                zip(
                    *(_fields(each, part) for each in self.columns.values()),
                    strict=True,
                )
            )
        return text.getvalue()


def _fields(column: Column, part: slice) -> list[Any]:
    if isinstance(column, PartlyKnown):
        return _blanked(column.values[part], ~column.known[part])
    values = column[part]
    if values.dtype.kind == "f":
        return _blanked(values, np.isnan(values))
    fields: list[Any] = values.tolist()
    return fields


def _blanked(values: npt.NDArray[Any], unknown: npt.NDArray[np.bool_]) -> list[Any]:
    fields: list[Any] = values.tolist()
    for row in np.flatnonzero(unknown).tolist():
        fields[row] = ""
    return fields
