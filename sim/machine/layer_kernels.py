"""The role of a kernel library that tells kernels, and their HBM bytes, apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Part(NamedTuple):
    """A kernel of a layer on one GPU.

    Attributes:
        name: Such as "qkv_proj".
        ns: Its time alone.
        hbm_bytes: What it moves to and from this GPU's HBM.
    """

    name: str
    ns: int
    hbm_bytes: float


class LayerKernels(Protocol):
    """Kernels of one layer on one GPU of a tensor-parallel group.

    All of a layer's kernels add up to the times of
    :class:`sim.kernel_times.KernelTimes`, to the nanosecond.
    """

    def projections(self, rows: int, *, leading: bool) -> tuple[Part, ...]:
        """Matrix products of attention, the output projection last."""
        ...

    def ffn(self, rows: int, *, leading: bool) -> tuple[Part, ...]:
        """Router, shared and dense FFN, the down projection last; may be empty."""
        ...

    def elementwise(self, rows: int, *, leading: bool) -> tuple[Part, Part]:
        """Memory-bound kernels before attention's end, and those of the FFN."""
        ...

    def experts(self, rows: int, touched: float) -> Part:
        """Routed experts, with ``touched`` of them reading weights."""
        ...

    def prefill_attention(
        self, chunks: Sequence[tuple[int, int]], *, windowed: bool
    ) -> Part:
        """Attention of (prefix, tokens) chunks."""
        ...

    def decode_attention(self, batch: int, context: int, *, windowed: bool) -> Part:
        """Attention of ``batch`` rows over ``context`` KV tokens."""
        ...
