"""Kernels of one layer in the order an engine issues them, under an overlap policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from sim.kernel_times import KernelTimes
from sim.machine.batch import Batch
from sim.machine.layer_kernels import LayerKernels, Part
from sim.machine.streams import COMMUNICATION, COMPUTE, HBM, LINK, Kernel, kernel
from sim.model_work import LayerKind, ModelWork
from sim.row_cost import Coverage

_PREVIOUS: Final = (1,)
# A collective reads at the sender what it sends and writes it at the receiver.
_LINK_USES: Final = ((LINK, 1), (HBM, 2))
_HBM_USES: Final = ((HBM, 1),)


class Overlap(StrEnum):
    """What runs while a collective does.

    ``TP_ALL_REDUCE`` cuts the kernel before each all-reduce in halves of the rows and
    sums the first half while the second is computed (as async TP and Flux do, which cut
    finer). ``TWO_BATCH`` runs the layer for two halves of the batch, one computing
    while the other communicates (DeepSeek-V3's two micro-batches, vLLM's dual batch
    overlap). Halves cost what the tables say of so many rows.
    """

    NONE = "none"
    TP_ALL_REDUCE = "tp-all-reduce"
    TWO_BATCH = "two-batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupGpu:
    """One GPU of a tensor-parallel group.

    Attributes:
        capacities: HBM bandwidth and link bandwidth in one direction (bytes/s).
        num_gpus: GPUs of the group.
        layer_gap_ns: Small kernels and gaps of a layer (see
            :class:`~sim.step_cost.HostTimes`).
    """

    capacities: tuple[int, int]
    num_gpus: int
    layer_gap_ns: int = 0


class Layer(NamedTuple):
    """A layer's kernels.

    Attributes:
        kernels: In the order they are issued.
        tail: How far before the next layer's first kernel the last one stands that it
            waits for; of the first half where the layer runs in two.
    """

    kernels: tuple[Kernel, ...]
    tail: int


class LayerIssue:
    """Lists a layer's kernels.

    All GPUs of a tensor-parallel group run the same kernels at the same time, each with
    its own HBM and its own port into the switch, so one of them stands for all.

    Args:
        layers: Kernels of a layer.
        kernels: Times of the collectives.
        coverage: Experts touched by a batch; None for dense models.
        work: Bytes of the model.
        padded: Maps rows to (rows that run, whether a CUDA graph replays them).
        gpu: What they run on.
        overlap: What may run together.
    """

    def __init__(
        self,
        *,
        layers: LayerKernels,
        kernels: KernelTimes,
        coverage: Coverage | None,
        work: ModelWork,
        padded: Callable[[int], tuple[int, bool]],
        gpu: GroupGpu,
        overlap: Overlap,
    ) -> None:
        self._layers = layers
        self._kernels = kernels
        self._coverage = coverage
        self._work = work
        self._padded = padded
        self._gpu = gpu
        self._overlap = overlap

    def _overlaps(self, batch: Batch) -> bool:
        return self._gpu.num_gpus > 1 and batch.worth_halving

    def layer(
        self, batch: Batch, kind: LayerKind, *, windowed: bool, tail: int
    ) -> Layer:
        """Kernels of a layer.

        Args:
            batch: What runs through it.
            kind: Of the layer.
            windowed: Whether its attention has a sliding window.
            tail: That of the layer before; 1 for the first.
        """
        if self._overlap != Overlap.TWO_BATCH or not self._overlaps(batch):
            attention, ffn = self._segments(batch, kind, windowed=windowed)
            return Layer(_chained((*attention, *ffn)), 1)
        first, second = (
            self._segments(half, kind, windowed=windowed) for half in batch.halves()
        )
        return Layer(_interleaved(first, second, tail), len(second[1]) + 1)

    def collective(self, name: str, ns: int, link_bytes: float) -> list[Kernel]:
        """A collective of so many link bytes on this GPU; none if it takes no time."""
        if not ns:
            return []
        capacities = self._gpu.capacities
        return [kernel(name, COMMUNICATION, ns, link_bytes, _LINK_USES, capacities)]

    def compute(self, part: Part) -> list[Kernel]:
        """A kernel on the compute stream; none if it takes no time."""
        name, ns, moved = part
        if not ns:
            return []
        return [kernel(name, COMPUTE, ns, moved, _HBM_USES, self._gpu.capacities)]

    def _segments(
        self, batch: Batch, kind: LayerKind, *, windowed: bool
    ) -> tuple[list[Kernel], list[Kernel]]:
        """Attention and FFN, each with its all-reduce at the end."""
        layers, leading = self._layers, kind.leading
        run, _ = self._padded(batch.rows)
        before, of_ffn = layers.elementwise(run, leading=leading)
        *projections, _ = layers.projections(run, leading=leading)
        attention = [before, *projections]
        if batch.chunks:
            attention.append(layers.prefill_attention(batch.chunks, windowed=windowed))
        if batch.decoding:
            context = batch.context_tokens
            attention.append(
                layers.decode_attention(batch.decoding, context, windowed=windowed)
            )
        *ffn, _ = self._ffn(batch, kind)
        gap = Part("engine", self._gpu.layer_gap_ns, 0.0)
        return (
            [*self._listed(attention), *self._summed(batch, kind, self._output)],
            [
                *self._listed([gap, of_ffn, *ffn]),
                *self._summed(batch, kind, self._last),
            ],
        )

    def _listed(self, parts: Sequence[Part]) -> list[Kernel]:
        return [k for part in parts for k in self.compute(part)]

    def _output(self, batch: Batch, kind: LayerKind) -> Part:
        run, _ = self._padded(batch.rows)
        return self._layers.projections(run, leading=kind.leading)[-1]

    def _last(self, batch: Batch, kind: LayerKind) -> Part:
        return self._ffn(batch, kind)[-1]

    def _ffn(self, batch: Batch, kind: LayerKind) -> list[Part]:
        run, _ = self._padded(batch.rows)
        parts = list(self._layers.ffn(run, leading=kind.leading))
        if not kind.leading and self._coverage is not None:
            touched = self._coverage.touched(batch.decoding, batch.tokens)
            parts.append(self._layers.experts(run, touched))
        return parts

    def _summed(
        self, batch: Batch, kind: LayerKind, last: Callable[[Batch, LayerKind], Part]
    ) -> list[Kernel]:
        """The kernel before an all-reduce and the all-reduce, perhaps in halves."""
        pieces: tuple[Batch, ...] = (batch,)
        if self._overlap == Overlap.TP_ALL_REDUCE and self._overlaps(batch):
            pieces = batch.halves()
        return [
            k
            for piece in pieces
            for k in (*self.compute(last(piece, kind)), *self._all_reduce(piece))
        ]

    def _all_reduce(self, batch: Batch) -> list[Kernel]:
        run, graph = self._padded(batch.rows)
        timed = self._kernels.all_reduce(run, graph=graph)
        moved = batch.rows * self._work.all_reduce_bytes / self._gpu.num_gpus
        return self.collective("all_reduce", timed.ns, moved)


def _chained(kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
    """Each after the one before, but a second half beside the sum of the first."""
    listed = []
    for i, each in enumerate(kernels):
        beside = i > 1 and kernels[i - 1].stream == COMMUNICATION
        second_half = beside and each.name == kernels[i - 2].name
        listed.append(each._replace(after=() if second_half else _PREVIOUS))
    return tuple(listed)


Segments = tuple[list[Kernel], list[Kernel]]


def _interleaved(first: Segments, second: Segments, tail: int) -> tuple[Kernel, ...]:
    """Segments of two halves by turns, each after the one before of its own half."""
    (attention, ffn), (other_attention, other_ffn) = first, second
    waits = (
        (attention, tail),
        (other_attention, len(attention) + 1),
        (ffn, len(other_attention) + 1),
        (other_ffn, len(ffn) + 1),
    )
    listed: list[Kernel] = []
    for segment, back in waits:
        head, *rest = segment
        listed.append(head._replace(after=(back,)))
        listed.extend(each._replace(after=_PREVIOUS) for each in rest)
    return tuple(listed)
