"""The kernels of a layer one by one, with the bytes each moves through HBM."""

from __future__ import annotations

from collections.abc import Sequence

from calibration.kernels.model_kernels import ModelKernels
from sim.kernel_times import Timed
from sim.machine.layer_kernels import Part


class KernelList:
    """Implements :class:`sim.machine.layer_kernels.LayerKernels` from profiled tables.

    Args:
        kernels: Kernel times of the model.
    """

    def __init__(self, kernels: ModelKernels) -> None:
        self._kernels = kernels

    def projections(self, rows: int, *, leading: bool) -> tuple[Part, ...]:
        """Matrix products of attention, the output projection last."""
        found = self._kernels.projections(rows)
        return _parts([*["qkv_proj"] * (len(found) - 1), "o_proj"], found)

    def ffn(self, rows: int, *, leading: bool) -> tuple[Part, ...]:
        """Router, shared and dense FFN, the down projection last."""
        found = self._kernels.ffn(rows, leading=leading)
        names = ["gate_up_proj", "down_proj"]
        if len(found) % 2:
            names = ["router", *names]
        return _parts(names[: len(found)], found)

    def elementwise(self, rows: int, *, leading: bool) -> tuple[Part, Part]:
        """Norms, rotary embedding and the engine's kernels per row; then the FFN's."""
        kernels = self._kernels
        ns = kernels.elementwise(rows, leading=leading).ns
        row_bytes = kernels.elementwise_row_bytes(leading)
        of_ffn, ffn_bytes = kernels.ffn_elementwise(rows, leading=leading)
        before = Part("norm_rope", ns - of_ffn, rows * (row_bytes - ffn_bytes))
        return before, Part("norm_act", of_ffn, rows * ffn_bytes)

    def experts(self, rows: int, touched: float) -> Part:
        """Routed experts, with ``touched`` of them reading weights."""
        moved = self._kernels.expert_bytes(rows, touched)
        return Part("experts", self._kernels.experts(rows, touched).ns, moved)

    def prefill_attention(
        self, chunks: Sequence[tuple[int, int]], *, windowed: bool
    ) -> Part:
        """Attention of (prefix, tokens) chunks."""
        kernels = self._kernels
        timed = kernels.prefill_attention(chunks, windowed=windowed)
        moved = kernels.prefill_bytes(chunks, windowed=windowed)
        return Part("prefill_attention", timed.ns, moved)

    def decode_attention(self, batch: int, context: int, *, windowed: bool) -> Part:
        """Attention of ``batch`` rows over ``context`` KV tokens."""
        kernels = self._kernels
        timed = kernels.decode_attention(batch, context, windowed=windowed)
        moved = kernels.decode_bytes(batch, context, windowed=windowed)
        return Part("decode_attention", timed.ns, moved)


def _parts(
    names: Sequence[str], products: Sequence[tuple[Timed, int]]
) -> tuple[Part, ...]:
    """Matrix products by name, from their times and HBM bytes."""
    pairs = zip(names, products, strict=True)
    return tuple(Part(name, timed.ns, moved) for name, (timed, moved) in pairs)
