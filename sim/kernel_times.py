"""The role of a kernel library: how long each kernel of a layer takes on one GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class Timed(NamedTuple):
    """A kernel time, and how much of it lies outside the profiled range (ns)."""

    ns: int
    extrapolated_ns: int = 0


class KernelTimes(Protocol):
    """Times of one model's kernels on one GPU of a tensor-parallel group.

    Rows are tokens; every time is that of the slowest GPU of the group, as an integer
    number of nanoseconds. ``leading`` asks for a layer of the model's leading kind
    (see :class:`sim.model_work.LayerKind`).
    """

    def linear(self, rows: int, *, leading: bool = False) -> Timed:
        """Attention projections, router, shared and dense FFN of one layer."""
        ...

    def elementwise(self, rows: int, *, leading: bool = False) -> Timed:
        """Norms, rotary embedding and activation functions of one layer."""
        ...

    def experts(self, rows: int, touched: float) -> Timed:
        """Routed experts of one layer, with ``touched`` of them reading weights."""
        ...

    def all_reduce(self, rows: int, *, graph: bool) -> Timed:
        """One all-reduce of ``rows`` hidden states, replayed in a CUDA graph or not."""
        ...

    def prefill_attention(
        self, chunks: Sequence[tuple[int, int]], *, windowed: bool
    ) -> Timed:
        """Causal attention of (prefix, tokens) chunks in one layer."""
        ...

    def decode_attention(self, batch: int, context: int, *, windowed: bool) -> Timed:
        """Attention of ``batch`` rows over ``context`` KV tokens in one layer."""
        ...

    def decode_attention_many(
        self, batch: int, contexts: npt.NDArray[np.int64], *, windowed: bool
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """:meth:`decode_attention` over contexts that grow: ns, what is extrapolated.

        Whatever is extrapolated of a context is so of every longer one.
        """
        ...

    def head(self, rows: int, logit_rows: int) -> Timed:
        """Embedding of ``rows`` tokens, LM head and sampling of ``logit_rows``."""
        ...

    def embedding(self, rows: int) -> Timed:
        """The embedding's part of :meth:`head`."""
        ...

    def gather_logits(self, logit_rows: int) -> Timed:
        """Gather of ``logit_rows`` rows of logits from a split vocabulary."""
        ...
