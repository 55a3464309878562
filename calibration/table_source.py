"""What is cut out of one public table, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

CORE: Final = "aiconfigurator-core"
LEGACY: Final = "aiconfigurator"
PACKAGE_VERSIONS: Final[Mapping[str, str]] = {CORE: "0.12.0", LEGACY: "0.10.0"}
LICENCE: Final = "Apache-2.0"

# Both communication benchmarks name a message by its number of 16-bit elements: in the
# NCCL table a size N of "half" takes the time of a size 2N of "int8".
BYTES_PER_ELEMENT: Final = 2

SHAPE_COLUMNS: Final = ("hidden_size", "inter_size", "topk", "num_experts")
Shape = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class TableSource:
    """One packed table and the parquet member it is cut from.

    Attributes:
        table: name of the packed table.
        package: distribution whose wheel holds the member.
        member: path of the parquet file inside the wheel.
        version: value of the member's `version` column to keep, where any row has it
            (a collection may hold the rows of an older one).
        keys: packed column -> source column, in sorting order.
        keep: source column -> values to keep.
        rename: packed column -> {source string: packed string}; other strings go.
        absent: source column -> value where an older file lacks the column.
        shapes: MoE shapes to keep, all if empty.
        pure_split: keep experts split over TP or over EP, never both.
        most_rows_of: column of which, per head shape and KV format, only the value
            with most rows is kept; "" for none.
        message_column: packed column to turn from elements into bytes, if any.
        phases: phase -> columns of microseconds whose sum is its latency, of a table
            that holds several phases in a row; each becomes a row, named by the
            column ``phase``.
        optional: whether the pack is complete without it.
    """

    table: str
    package: str
    member: str
    version: str
    keys: Mapping[str, str]
    keep: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    rename: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    absent: Mapping[str, int | str] = field(default_factory=dict)
    shapes: tuple[Shape, ...] = ()
    pure_split: bool = False
    most_rows_of: str = ""
    message_column: str = ""
    phases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional: bool = False
