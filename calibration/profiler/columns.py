"""Tables and columns of the kernel-timing CSV, and one kernel and its row as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

Value = int | str

TABLE: Final = "table"
LATENCY: Final = "latency_ns"
ENERGY: Final = "energy_mj"
SOURCE: Final = "kernel_source"
TIMER: Final = "timer"
EVENT_NS: Final = "event_ns"
CUPTI: Final = "cupti"
EVENT: Final = "cuda-event"
TIMERS: Final = (CUPTI, EVENT)
"""What `latency_ns` was measured by: the kernels alone, or events around the launch."""
TOUCHED: Final = "touched"
"""The distribution whose pairs are spread evenly over `touched_experts` experts."""

_HEADS: Final = ("num_heads", "num_key_value_heads", "head_dim", "window_size")
TABLES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "gemm": ("dtype", "n", "k", "m"),
        "prefill_attention": ("kv_dtype", *_HEADS, "batch_size", "isl", "prefix"),
        "decode_attention": ("kv_dtype", *_HEADS, "batch_size", "step"),
        "moe": (
            *("dtype", "hidden_size", "inter_size", "topk", "num_experts"),
            *("moe_tp_size", "moe_ep_size", "distribution", "num_tokens"),
            "touched_experts",
        ),
        "custom_allreduce": ("backend", "num_gpus", "message_size"),
        "nccl": ("op_name", "num_gpus", "message_size"),
    }
)
"""Table -> its key columns, in sorting order."""

WORDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "dtype": ("bfloat16", "fp8", "mxfp4"),
        "kv_dtype": ("bfloat16", "fp8"),
        "distribution": (TOUCHED, "balanced", "power_law_1.01", "power_law_1.2"),
        "backend": ("graph", "eager"),
        "op_name": ("all_reduce", "all_gather", "reduce_scatter", "alltoall"),
    }
)
"""Key columns that hold a word -> the words allowed; the others hold integers."""

_KEYS: Final = tuple(dict.fromkeys(c for keys in TABLES.values() for c in keys))
COLUMNS: Final = (TABLE, *_KEYS, LATENCY, ENERGY, SOURCE, TIMER, EVENT_NS)
"""All columns, in the order in which they are written."""

NOT_SET: Final = 0
"""`touched_experts` of the synthetic laws, in memory; an empty cell in a file."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What is measured: a table and the values of its key columns, in their order."""

    table: str
    values: tuple[Value, ...]

    @property
    def keys(self) -> dict[str, Value]:
        """Key column -> value; `touched_experts` is 0 where it does not apply."""
        return dict(zip(TABLES[self.table], self.values, strict=True))

    def size(self, column: str) -> int:
        """The value of an integer key column."""
        return int(self.keys[column])

    @property
    def name(self) -> str:
        """One word for messages and journals: "gemm/bfloat16/4096/2048/512"."""
        return "/".join((self.table, *map(str, self.values)))


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One measured kernel; what was not measured or not said is None or empty."""

    kernel: Kernel
    latency_ns: int
    energy_mj: float | None
    kernel_source: str
    timer: str = ""
    event_ns: int | None = None


def kernel(table: str, **keys: Value) -> Kernel:
    """A kernel from named key values; all of the table's, in any order."""
    return Kernel(table, tuple(keys[column] for column in TABLES[table]))


def sort_key(kernel: Kernel) -> tuple[int, tuple[Value, ...]]:
    """Order of kernels: tables as listed in `TABLES`, then keys from left to right."""
    return list(TABLES).index(kernel.table), kernel.values
